"""The settings of a run: its sections, each of which has its names, types, defaults and limits in a
file of its own.

A `RunConfig` is frozen and complete; it is made by `load.py`, which also checks what no single
field can know. Types are strict: text is no number and a number is no boolean, because a setting
quietly converted is a setting misread.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from smolvlm.config.adapters import PARTS, AdapterConfig, AdaptersConfig, PartName
from smolvlm.config.best import best_problems
from smolvlm.config.data import DataConfig
from smolvlm.config.eval_metrics import DEFAULT_METRICS, metric_names, unknown_metric
from smolvlm.config.freeze import FreezeConfig
from smolvlm.config.new_tokens import WORDS as NEW_TOKENS_WORDS
from smolvlm.config.new_tokens import NewTokens, new_token_problems
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.quantization import FullPrecision, Quantization, QuantizationConfig
from smolvlm.config.rope import RopeScaling
from smolvlm.config.section import Count, Section
from smolvlm.config.train import TrainConfig

EMBEDDED_MODEL = "embedded"
"""As `model.path`: build a model from parts that install as ordinary packages."""
NEW_TOKENS_LR = 1e-4
"""Of new tokens' rows beside a frozen language model."""


class ModelConfig(Section):
    """Where the model comes from."""

    FIELD_WORDS: ClassVar[Mapping[str, str]] = {"new_tokens": NEW_TOKENS_WORDS}

    path: Annotated[str, Field(min_length=1)]
    """A hub id, a folder, or the word `embedded`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the weights are held in; bfloat16 weights lose small updates."""
    attention: Literal["auto", "varlen"] = "auto"
    """How training attends within packs: `auto` by flex_attention on CUDA and by SDPA elsewhere;
    `varlen` by torch's FlashAttention where a pack has no branches, on CUDA in half precision."""
    new_tokens: NewTokens = Field(default_factory=list)
    """Texts that become one token each."""
    rope_scaling: RopeScaling | None = None
    """Makes the context longer than the checkpoint's."""

    def problems(self, config: "RunConfig") -> Iterator[Problem]:
        """Yield what is wrong with new tokens, attention and the scaling."""
        yield from new_token_problems(config)
        if self.attention == "varlen" and config.train.context_ranks > 1:
            what = "has no effect where several ranks hold a pack (train.context_ranks)"
            yield Problem(key="model.attention", value="varlen", what=what, fix="take one out")
        if self.rope_scaling is not None:
            yield from self.rope_scaling.problems(config)


class EvalConfig(Section):
    """How answers are generated and scored."""

    max_new_tokens: Count = 32
    """Where an answer that does not end is cut."""
    batch_size: Count = 32
    """Questions that are answered together; scores do not depend on it."""
    max_rows: Count | None = None
    """Rows of each source; None is all."""
    at_start: bool = True
    """Evaluate the untrained model first, to compare with; takes effect where there is an
    `eval_mixture`."""
    at_end: bool = True
    """Evaluate once training is done; takes effect where there is an `eval_mixture`."""
    metric: str | list[str] | None = None
    """What answers are scored by, one or several, where their source has no `metric` of its own;
    None is `exact_match` and `vqa_accuracy`. The first one decides what the report calls right."""

    best_by: str | None = None
    """Metric that decides which model a run ends with: `loss`, `exact_match`, or of one source
    `SOURCE/exact_match`. Each new best is saved and kept; null ends with the last step's."""
    patience: Count | None = None
    """Evaluations in a row without a better `best_by` after which training stops; null never
    stops it."""

    FIELD_WORDS: ClassVar[Mapping[str, str]] = {"metric": "must be a metric, or a list of them"}

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics' names."""
        return metric_names(self.metric) or DEFAULT_METRICS

    def problems(self, config: "RunConfig") -> Iterator[Problem]:
        """Yield a metric that is none, and what the best model cannot be chosen by."""
        yield from best_problems(config)
        if self.metric is None:
            return
        wrong = unknown_metric(self.metrics) if self.metric else ("the list is empty", None)
        if wrong is not None:
            value = shown_value(self.metric)
            yield Problem(key="eval.metric", value=value, what=wrong[0], fix=wrong[1])


class RunConfig(Section):
    """All settings of a run."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    eval: EvalConfig = Field(default_factory=EvalConfig)
    adapters: AdaptersConfig = Field(default_factory=AdaptersConfig)
    freeze: FreezeConfig = Field(default_factory=FreezeConfig)
    quantization: Quantization = FullPrecision()

    @classmethod
    def of_sections(cls, sections: Mapping[str, Section]) -> "RunConfig":
        """Return the run of these sections.

        A tower that `adapters` freezes has no default learning rate; one that is written stands.
        """
        config = cls.model_validate(sections)
        frozen = {
            PARTS[part]: 0.0 for part, entry in config.adapters.entries() if entry.type == "frozen"
        }
        rates = {
            name: rate for name, rate in frozen.items() if name not in config.train.model_fields_set
        }
        return config.model_copy(update={"train": config.train.model_copy(update=rates)})

    @property
    def trains_language_whole(self) -> bool:
        """Whether the language model trains its own weights, and no adapter."""
        entry = self.adapters.language
        return self.rate_of("language") > 0 and (entry is None or entry.type == "full")

    @property
    def token_rows_lr(self) -> float:
        """The learning rate of single tokens' rows; 0 where none trains by itself."""
        if self.trains_language_whole or not (self.model.new_tokens or self.train.trainable_tokens):
            return 0.0
        rate = self.train.new_tokens_lr
        return (self.rate_of("language") or NEW_TOKENS_LR) if rate is None else rate

    def rate_of(self, part: PartName) -> float:
        """Return the rate of what trains in a tower, its weights or its adapter; 0 for nothing."""
        train = self.train
        tower_rates = {
            "language": train.language_model_lr,
            "connector": train.connector_lr,
            "vision": train.vision_tower_lr,
        }
        entry: AdapterConfig | None = dict(self.adapters.entries()).get(part)
        return entry.lr if entry is not None and entry.lr is not None else tower_rates[part]


SECTIONS: dict[str, type[Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "train": TrainConfig,
    "eval": EvalConfig,
    "adapters": AdaptersConfig,
    "freeze": FreezeConfig,
    "quantization": QuantizationConfig,
}
UNAVAILABLE_SECTIONS: tuple[str, ...] = ()
"""Known to the format, and not built in this version."""
UNAVAILABLE_KEYS = {}


def own_names(section: str) -> tuple[str, ...]:
    """Return the names that a section has besides those of `TrainingArguments`."""
    return tuple(SECTIONS[section].settings())
