"""The run file's `quantization`: which towers' frozen weights are held in 8 or 4 bits, and how.

A quantised tower learns through an adapter, or not at all. Embeddings and the output head are never
quantised. The section is one of three, by its `bits`: each has the settings that mean something
with them.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from smolvlm.config.adapters import PARTS, PartName
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.section import Section
from smolvlm.config.yaml_text import Settings

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

QuantType = Literal["nf4", "fp4"]


class QuantizationConfig(Section):
    """What the three kinds of this section share."""

    FIELD_WORDS: ClassVar[Mapping[str, str]] = {"bits": "must be 8 or 4"}

    @property
    def parts(self) -> tuple[PartName, ...]:
        """The towers that are quantised."""
        return ()

    @classmethod
    def variant(cls, fields: Mapping[str, object]) -> "type[Quantization]":
        """Return the class that `bits` names; without them, or with others, full precision."""
        bits = fields.get("bits")
        return _KINDS.get(bits, FullPrecision) if isinstance(bits, int) else FullPrecision

    @classmethod
    def settings(cls) -> Mapping[str, FieldInfo]:
        """Return the settings of all kinds."""
        return FourBits.model_fields | EightBits.model_fields

    @classmethod
    def plain(
        cls, content: Settings, *, overridden: Collection[str], problems: list[Problem]
    ) -> Settings:
        """Return the section without what other `bits` on the command line leave without effect."""
        del problems
        if "bits" not in overridden:
            return content
        names = cls.variant(content).model_fields
        return {
            name: value for name, value in content.items() if name in names or name in overridden
        }

    @classmethod
    def as_fields(cls, content: Settings, *, run_dir: Path, problems: list[Problem]) -> Settings:
        """Return the fields of the kind that `bits` names; a null is no setting."""
        del run_dir
        variant, bits = cls.variant(content), content.get("bits")
        others = {
            name: value for name, value in content.items() if name not in variant.model_fields
        }
        are_bits_legal = bits is None or variant is not FullPrecision
        for name, value in others.items():
            if value is not None and are_bits_legal:
                what = (
                    f"has no effect with "
                    f"{'no quantization.bits' if bits is None else f'{bits} bits'}"
                )
                owners = " or ".join(
                    str(number)
                    for number, section in _KINDS.items()
                    if name in section.model_fields
                )
                fix = f"take it out, or set quantization.bits: {owners}"
                problems.append(
                    Problem(
                        key=f"quantization.{name}", value=shown_value(value), what=what, fix=fix
                    )
                )
        return {name: value for name, value in content.items() if name not in others}


class FullPrecision(QuantizationConfig):
    """Nothing is quantised."""

    bits: None = None
    """Bits a weight, 8 or 4; None quantises nothing."""


class _FewerBits(QuantizationConfig):
    """Towers' linear layers are held in few bits."""

    towers: Annotated[list[PartName], Field(min_length=1)] | None = None
    """Which towers are quantised; None is the language model alone."""

    @property
    def parts(self) -> tuple[PartName, ...]:
        return tuple(self.towers or ("language",))

    def problems(self, config: "RunConfig") -> Iterator[Problem]:
        """Yield quantised towers that could not learn, or what is learned not be saved."""
        bits = config.quantization.bits
        entries = dict(config.adapters.entries())
        for part in dict.fromkeys(self.parts):
            entry = entries.get(part)
            if entry is not None and entry.type == "pissa":
                what = (
                    f"it takes the base's weights apart, and quantization holds them in {bits} bits"
                )
                fix = "choose lora, rslora or dora, or quantise other towers"
                yield Problem(key=f"adapters.{part}", value="'pissa'", what=what, fix=fix)
            elif (entry is None or not entry.is_adapter) and config.rate_of(part) > 0:
                what = (
                    f"weights in {bits} bits are not trained, and train.{PARTS[part]} = "
                    f"{config.rate_of(part):g}"
                )
                fix = f"add adapters.{part}: lora, or set the rate to 0, or quantise other towers"
                yield Problem(
                    key="quantization.towers", value=shown_value(part), what=what, fix=fix
                )
        if not any(entry.is_adapter for entry in entries.values()):
            what = "what is saved is an adapter, and no tower has one"
            yield Problem(
                key="quantization.bits",
                value=str(bits),
                what=what,
                fix="add adapters.language: lora",
            )
        if len(set(self.parts)) < len(self.parts):
            value = shown_value(list(self.parts))
            yield Problem(
                key="quantization.towers",
                value=value,
                what="names a tower twice",
                fix="name it once",
            )
        if config.train.engine == "fsdp2":
            what = "quantised weights cannot be cut into the shards of train.engine: fsdp2"
            yield Problem(
                key="quantization.bits", value=str(bits), what=what, fix="take one of the two out"
            )


class EightBits(_FewerBits):
    """8 bits a weight."""

    bits: Literal[8] = 8


class FourBits(_FewerBits):
    """4 bits a weight, each the number of one of sixteen values."""

    bits: Literal[4] = 4
    quant_type: QuantType | None = None
    """The sixteen values; None is nf4, made for weights that are normally distributed."""
    double_quant: bool | None = None
    """Whether the scales of the blocks are quantised too; None is true."""

    @property
    def codebook(self) -> QuantType:
        return self.quant_type or "nf4"

    @property
    def has_double_quant(self) -> bool:
        return self.double_quant is not False


Quantization = FullPrecision | EightBits | FourBits
_KINDS: Mapping[object, type[Quantization]] = {8: EightBits, 4: FourBits}
"""`bits` -> the kind of section."""


def quantization_of(settings: Mapping[str, object]) -> Quantization:
    """Return the section with these settings, all of which belong to its `bits`."""
    return QuantizationConfig.variant(settings).model_validate(settings)
