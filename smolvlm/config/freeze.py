"""The run file's `freeze`: parts of a tower that do not train while the rest of it does.

A whole tower is frozen by its learning rate, 0. How many layers a tower has is known once the checkpoint's settings
are read: `smolvlm.checkpoints.frozen_parts` checks that, still before any weight is read.
"""

from typing import Annotated

from pydantic import AfterValidator, Field

from smolvlm.config.adapters import PartName
from smolvlm.config.section import Section


def _holds_a_layer(layers: list[int]) -> list[int]:
    if layers[0] >= layers[1]:
        raise ValueError("it holds no layer")
    return layers


LayerRange = Annotated[
    list[Annotated[int, Field(ge=0)]], Field(min_length=2, max_length=2), AfterValidator(_holds_a_layer)
]
"""[first, end): counted from 0, the end left out."""


class FreezeConfig(Section):
    """What is frozen inside towers that train."""

    embeddings: bool = False
    """The language model's; where a checkpoint ties the output head to them, the two go together."""
    output_head: bool = False
    language_layers: LayerRange | None = None
    """With the last layer goes the norm behind it; so in the vision tower too."""
    vision_embeddings: bool = False
    """Of patches and of positions."""
    vision_layers: LayerRange | None = None

    def asked(self, part: PartName) -> list[str]:
        """Return the names of the settings that freeze something in a tower."""
        return [name for name, own in TOWER_PARTS.items() if own == part and getattr(self, name)]


TOWER_PARTS: dict[str, PartName] = {
    "embeddings": "language",
    "output_head": "language",
    "language_layers": "language",
    "vision_embeddings": "vision",
    "vision_layers": "vision",
}
"""Setting -> the tower that it is about."""
