"""The run file's `model.rope_scaling`: a context longer than the checkpoint's.

What each type does to the checkpoint's rotary embeddings is in `smolvlm.checkpoints.context`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from smolvlm.config.problems import Problem
from smolvlm.config.section import Section

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

_OF_YARN = ("attention_factor", "beta_fast", "beta_slow")


class RopeScaling(Section):
    """How positions beyond the checkpoint's context are told apart."""

    type: Literal["linear", "dynamic", "yarn"]
    """`linear` divides all frequencies by the factor, `yarn` the low ones, `dynamic` enlarges the
    rotary base."""
    factor: Annotated[float, Field(gt=1)]
    """The new context over the checkpoint's."""
    attention_factor: Annotated[float, Field(gt=0)] | None = None
    """Of yarn: what queries and keys are multiplied by; None is 0.1 ln(factor) + 1."""
    beta_fast: Annotated[float, Field(gt=0)] | None = None
    """Of yarn: frequencies with more turns over the old context than this stay; None is 32."""
    beta_slow: Annotated[float, Field(gt=0)] | None = None
    """Of yarn: frequencies with fewer turns than this are divided by the whole factor; None is
    1."""

    @model_validator(mode="after")
    def _fits_together(self) -> "RopeScaling":
        yarn_settings = [name for name in _OF_YARN if getattr(self, name) is not None]
        if yarn_settings and self.type != "yarn":
            names = ", ".join(f"`{name}`" for name in yarn_settings)
            raise PydanticCustomError(
                "of_yarn", "{kind} takes no {names}", {"kind": self.type, "names": names}
            )
        if (self.beta_fast or 32) <= (self.beta_slow or 1):
            raise PydanticCustomError(
                "betas", "beta_fast (32 unless given) must be above beta_slow (1 unless given)"
            )
        return self

    def problems(self, config: "RunConfig") -> Iterator[Problem]:
        """Yield the scaling where what is saved is an adapter's folder: layers' adapters, or rows
        of single tokens."""
        saves_adapter = any(entry.is_adapter for _, entry in config.adapters.entries()) or bool(
            config.token_rows_lr
        )
        if saves_adapter:
            what = (
                "an adapter's folder does not carry it: put onto its base, the adapter would see "
                "other positions"
            )
            fix = (
                "extend the context of the base itself, in its config.json (docs/context.md), or "
                "train without adapters"
            )
            yield Problem(key="model.rope_scaling", what=what, fix=fix)
