"""The run file's `quantization`: which towers' frozen weights are held in 8 or 4 bits, and how.

A quantised tower learns through an adapter, or not at all. Embeddings and the output head are never quantised.
"""

from typing import Annotated, Literal

from pydantic import Field

from smolvlm.config.adapters import PartName
from smolvlm.config.section import Section

QuantType = Literal["nf4", "fp4"]


class QuantizationConfig(Section):
    """How the base's linear layers are held; without `bits` in full precision."""

    bits: Literal[8, 4] | None = None
    """None quantises nothing."""
    quant_type: QuantType | None = None
    """Of 4 bits: the sixteen values a weight may have; None is nf4, made for weights that are normally distributed."""
    double_quant: bool | None = None
    """Of 4 bits: whether the scales of the blocks are quantised too; None is true."""
    towers: Annotated[list[PartName], Field(min_length=1)] | None = None
    """None is the language model alone."""

    @property
    def parts(self) -> tuple[PartName, ...]:
        """The towers that are quantised."""
        return tuple(self.towers or ("language",)) if self.bits else ()

    @property
    def codebook(self) -> QuantType:
        return self.quant_type or "nf4"

    @property
    def has_double_quant(self) -> bool:
        return self.double_quant is not False
