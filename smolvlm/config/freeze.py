"""The run file's `freeze`: parts of a tower that do not train while the rest of it does.

A whole tower is frozen by its learning rate, 0. How many layers a tower has is known once the
checkpoint's settings are read: `smolvlm.checkpoints.frozen_parts` checks that, still before any
weight is read.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field

from smolvlm.config.adapters import PARTS, PartName
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.section import Section

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

_LAYERS = "must be two whole numbers, the first layer and the one behind the last, such as [0, 16]"


def _holds_a_layer(layers: list[int]) -> list[int]:
    if layers[0] >= layers[1]:
        raise ValueError("it holds no layer")
    return layers


LayerRange = Annotated[
    list[Annotated[int, Field(ge=0)]],
    Field(min_length=2, max_length=2),
    AfterValidator(_holds_a_layer),
]
"""[first, end): counted from 0, the end left out."""


class FreezeConfig(Section):
    """What is frozen inside towers that train."""

    FIELD_WORDS: ClassVar[Mapping[str, str]] = {
        "language_layers": _LAYERS,
        "vision_layers": _LAYERS,
    }

    embeddings: bool = False
    """Whether the language model's are frozen; where a checkpoint ties the output head to them, the
    two go together."""
    output_head: bool = False
    """Whether the layer that gives each token's score is frozen."""
    language_layers: LayerRange | None = None
    """The layers [first, behind the last] that are frozen; with the last one of all goes the norm
    behind it."""
    vision_embeddings: bool = False
    """Of patches and of positions."""
    vision_layers: LayerRange | None = None
    """The same of the vision tower."""

    def asked(self, part: PartName) -> list[str]:
        """Return the names of the settings that freeze something in a tower."""
        return [
            name for name, tower in TOWER_PARTS.items() if tower == part and getattr(self, name)
        ]

    def problems(self, config: "RunConfig") -> Iterator[Problem]:
        """Yield parts of towers that are frozen anyway."""
        parts: tuple[PartName, ...] = ("language", "vision")
        for part in parts:
            for name in self.asked(part):
                cause = _cause_without_effect(config, part)
                if cause is not None:
                    what, fix = cause
                    value = shown_value(getattr(self, name))
                    yield Problem(
                        key=f"freeze.{name}", value=value, what=f"has no effect: {what}", fix=fix
                    )


TOWER_PARTS: dict[str, PartName] = {
    "embeddings": "language",
    "output_head": "language",
    "language_layers": "language",
    "vision_embeddings": "vision",
    "vision_layers": "vision",
}
"""Setting -> the tower that it is about."""


def _cause_without_effect(config: "RunConfig", part: PartName) -> tuple[str, str] | None:
    """Return (why nothing can be frozen in a tower, what to do), or None where something can."""
    if config.adapters.adapter_of(part) is not None:
        what = f"adapters.{part} freezes all of the tower's own weights"
        return what, f"take it out; adapters.{part}.targets says which layers get an adapter"
    if config.rate_of(part) == 0:
        return (
            f"the tower is frozen, train.{PARTS[part]} is 0",
            "take it out, or give the tower a rate above 0",
        )
    return None
