"""The run file's `model.rope_scaling`: a context longer than the checkpoint's.

What each type does to the checkpoint's rotary embeddings is in `smolvlm.checkpoints.context`.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from smolvlm.config.section import Section

_OF_YARN = ("attention_factor", "beta_fast", "beta_slow")


class RopeScaling(Section):
    """How positions beyond the checkpoint's context are told apart."""

    type: Literal["linear", "dynamic", "yarn"]
    """`linear` divides all frequencies by the factor, `yarn` the low ones, `dynamic` enlarges the rotary base."""
    factor: Annotated[float, Field(gt=1)]
    """The new context over the checkpoint's."""
    attention_factor: Annotated[float, Field(gt=0)] | None = None
    """Of yarn: what queries and keys are multiplied by; None is 0.1 ln(factor) + 1."""
    beta_fast: Annotated[float, Field(gt=0)] | None = None
    """Of yarn: frequencies with more turns over the old context than this stay; None is 32."""
    beta_slow: Annotated[float, Field(gt=0)] | None = None
    """Of yarn: frequencies with fewer turns than this are divided by the whole factor; None is 1."""

    @model_validator(mode="after")
    def _fits_together(self) -> Any:
        given = [name for name in _OF_YARN if getattr(self, name) is not None]
        if given and self.type != "yarn":
            names = ", ".join(f"`{name}`" for name in given)
            raise PydanticCustomError("of_yarn", "{kind} takes no {names}", {"kind": self.type, "names": names})
        if (self.beta_fast or 32) <= (self.beta_slow or 1):
            raise PydanticCustomError("betas", "beta_fast (32 unless given) must be above beta_slow (1 unless given)")
        return self
