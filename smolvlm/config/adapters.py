"""The run file's `adapters`: what each tower trains instead of all its weights, and at which rate.

An entry is a word (`lora`, `full`, `frozen` ...) or a mapping (`{type: lora, r: 8}`). A tower
without one follows its learning rate. With an adapter a tower's own weights are frozen, and its
rate, or the entry's `lr`, is the adapter's.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.section import Count, LearningRate, Section

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

PartName = Literal["language", "connector", "vision"]
PARTS: dict[PartName, str] = {
    "language": "language_model_lr",
    "connector": "connector_lr",
    "vision": "vision_tower_lr",
}
"""Entry -> the setting of `train` that is its tower's learning rate."""


class AdapterConfig(Section):
    """What one tower trains."""

    MAPPING_WORDS = "must be a word (lora, full, frozen ...) or a mapping of settings"
    NOUN = "an adapter"

    type: Literal["lora", "dora", "rslora", "pissa", "full", "frozen"] = "lora"
    """`full` trains all weights of the tower and `frozen` none; these two take no other setting."""
    r: Count = 8
    """Rank: columns and rows of the two matrices that are learned for each layer."""
    alpha: Annotated[float, Field(gt=0)] = 8.0
    """What they add is scaled by alpha / r; by alpha / sqrt(r) with rslora."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of an adapted layer's inputs that the adapter does not see, while training."""
    init: Literal["kaiming", "gaussian"] = "kaiming"
    """How the first of the two matrices begins: uniform, as peft does by default, or normal with a
    deviation of 1 / r; the second begins at 0. PiSSA takes both from the weights."""
    targets: Annotated[list[str], Field(min_length=1)] | None = None
    """Full names of layers, `*` standing for anything; None is every linear layer of the tower but
    the output head."""
    lr: LearningRate | None = None
    """None is the tower's."""

    @model_validator(mode="before")
    @classmethod
    def _words_stand_alone(cls, content: object) -> object:
        if (
            isinstance(content, dict)
            and content.get("type") in ("full", "frozen")
            and len(content) > 1
        ):
            others = ", ".join(f"`{name}`" for name in content if name != "type")
            raise PydanticCustomError(
                "word_alone",
                "{kind} takes no {others}",
                {"kind": content["type"], "others": others},
            )
        return content

    @model_serializer(mode="wrap")
    def _as_written(self, as_mapping: SerializerFunctionWrapHandler) -> object:
        return as_mapping(self) if self.is_adapter else self.type

    @property
    def is_adapter(self) -> bool:
        return self.type not in ("full", "frozen")


def _from_word(entry: object) -> object:
    return {"type": entry} if isinstance(entry, str) else entry


Entry = Annotated[AdapterConfig | None, BeforeValidator(_from_word)]


class AdaptersConfig(Section):
    """Adapters by tower; None is a tower that follows its learning rate."""

    language: Entry = None
    """Of the language model; a kind of adapter, or a mapping."""
    connector: Entry = None
    """Of the connector; likewise."""
    vision: Entry = None
    """Of the vision tower; likewise."""

    def entries(self) -> Iterator[tuple[PartName, AdapterConfig]]:
        """Yield the towers that have an entry."""
        entries: dict[PartName, AdapterConfig | None] = {
            "language": self.language,
            "connector": self.connector,
            "vision": self.vision,
        }
        for part, entry in entries.items():
            if entry is not None:
                yield part, entry

    def adapter_of(self, part: PartName) -> AdapterConfig | None:
        """Return a tower's adapter, or None where it has none."""
        entry = dict(self.entries()).get(part)
        return entry if entry is not None and entry.is_adapter else None

    def problems(self, config: "RunConfig") -> Iterator[Problem]:
        """Yield towers whose entry and learning rate disagree, and adapters of several types."""
        for part, entry in self.entries():
            key, rate_key = f"adapters.{part}", f"train.{PARTS[part]}"
            rate = config.rate_of(part)
            if entry.type == "frozen" and rate > 0:
                fix = f"set {rate_key}: 0, or take the word out"
                yield Problem(
                    key=key,
                    value="'frozen'",
                    what=f"the tower has a learning rate, {rate_key} = {rate:g}",
                    fix=fix,
                )
            if entry.type == "full" and rate == 0:
                fix = f"set {rate_key} above 0, or write `frozen`"
                yield Problem(
                    key=key,
                    value="'full'",
                    what=f"nothing would be learned: {rate_key} is 0",
                    fix=fix,
                )
            if entry.is_adapter and rate == 0:
                cause = f"{key}.lr is 0" if entry.lr is not None else f"{rate_key} is 0"
                fix = f"set {key}.lr or {rate_key} above 0, or take the adapter out"
                yield Problem(
                    key=key,
                    value=shown_value(entry.type),
                    what=f"it would learn nothing: {cause}",
                    fix=fix,
                )
            if entry.type == "pissa" and entry.init != "kaiming":
                what = "has no effect with type = pissa, which begins from the weights"
                yield Problem(key=f"{key}.init", value=entry.init, what=what, fix="take it out")
        yield from self._unlike()

    def _unlike(self) -> Iterator[Problem]:
        """Yield what adapters that are saved as one may not have of their own."""
        inits = {entry.init for _, entry in self.entries() if entry.is_adapter}
        if len(inits) > 1:
            what = (
                "the towers' adapters are saved as one, which begins in one way: give all one init"
            )
            yield Problem(key="adapters", what=what, fix="write the same `init` for each")
        types = {entry.type: part for part, entry in self.entries() if entry.is_adapter}
        if len(types) > 1:
            listing = ", ".join(f"{part}: {adapter_type}" for adapter_type, part in types.items())
            what = (
                f"the towers' adapters are saved as one, which has one type, and these have "
                f"several ({listing})"
            )
            yield Problem(
                key="adapters",
                what=what,
                fix="give all of them one type; r, alpha, dropout and lr may differ",
            )
