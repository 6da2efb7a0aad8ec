"""The settings of a run: every name, type, default and limit, here and nowhere else.

A `RunConfig` is frozen and complete; it is made by `load.py`, which also checks what no single field can know. Types
are strict: text is no number and a number is no boolean, because a setting quietly converted is a setting misread.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from smolvlm.config.adapters import AdapterConfig, AdaptersConfig, PartName
from smolvlm.config.freeze import FreezeConfig
from smolvlm.config.new_tokens import NewTokens
from smolvlm.config.quantization import QuantizationConfig
from smolvlm.config.rope import RopeScaling
from smolvlm.config.section import Count, LearningRate, Section

EMBEDDED_MODEL = "embedded"
"""As `model.path`: build a model from parts that install as ordinary packages."""
NEW_TOKENS_LR = 1e-4
"""Of new tokens' rows beside a frozen language model."""
REFERENCE_FREE = frozenset({"simpo", "orpo"})
"""Values of `train.loss_type` that compare nothing with a reference."""


def _as_path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) and value else value


def _not_a_number(value: Any) -> Any:
    if isinstance(value, int) and value is not False:  # 0 equals False, and true names no checkpoint
        raise ValueError("a number is no checkpoint")
    return value


def _not_a_boolean(value: Any) -> Any:
    if isinstance(value, bool):  # true equals 1
        raise ValueError("a boolean is no number")
    return value


FilePath = Annotated[Path, BeforeValidator(_as_path)]
Mixture = FilePath | list[Any] | dict[str, Any]


class ModelConfig(Section):
    """Where the model comes from."""

    path: Annotated[str, Field(min_length=1)]
    """A hub id, a folder, or the word `embedded`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the weights are held in; bfloat16 weights lose small updates."""
    new_tokens: NewTokens = Field(default_factory=list)
    """Texts that become one token each."""
    rope_scaling: RopeScaling | None = None
    """Makes the context longer than the checkpoint's."""


class DataConfig(Section):
    """What is trained on, and how it is cut and packed."""

    mixture: Mixture
    """A YAML file, or the sources written here."""
    eval_mixture: Mixture | None = None
    """The same, for evaluation."""
    base_dir: FilePath = Path(".")
    """Folder that the relative paths of inline mixtures start from; the run file's folder unless given."""
    allow_outside_root: bool = False
    """Whether rows may name pictures outside their source's folder of pictures (`..`, links, absolute paths)."""
    allow_urls: bool = False
    """Whether rows may name pictures and clips by http and https addresses; they are fetched once and kept."""
    max_tokens_per_pack: Count = 4096
    max_tiles_per_pack: Count = 64
    share_media: bool = True
    """Conversations that begin with the same pictures become one tree, and the pictures are read once."""
    max_branches: Count = 16
    """Conversations in one tree."""
    image_splitting: bool | None = None
    """Whether pictures are cut into tiles; None is the processor's own setting."""
    longest_edge_px: Count | None = None
    """What a picture's longest edge is scaled to; None is the processor's own setting."""
    fps: Annotated[float, Field(gt=0)] = 1.0
    """Frames shown of a second of video; fewer where that would be more than `max_frames`."""
    max_frames: Count = 64
    """Frames shown of one clip at most."""
    sampling: Literal["fps", "uniform"] = "fps"
    """`uniform` shows `max_frames` frames of every clip, however long it is."""
    average_frames: Annotated[Literal[1, 2, 4, 8], BeforeValidator(_not_a_boolean)] = 1
    """How many consecutive frames of a clip share one place in the text, as the mean of their features; 1 is off."""
    video_backend: Literal["pyav", "torchcodec", "decord"] = "pyav"
    """What decodes clips."""
    prompt_wording: Literal["released", "legacy"] = "released"
    """What is said around media: as the released processor says it, or as the released models' own training did."""
    loss_weighting: Literal["token", "sample", "sqrt"] = "token"
    """Weight of each of a conversation's n supervised tokens: 1, 1/n or 1/sqrt(n)."""
    on_bad_sample: Literal["error", "skip"] = "error"
    max_bad_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Largest share of a source's rows that may be skipped."""
    vision_cache: bool = True
    """Compute each tile's features once; takes effect where the vision tower is frozen."""
    vision_cache_dir: FilePath | None = None
    """None is `vision_cache` in the output folder."""
    prefetch_mb: Count = 512
    """Memory of a rank's packs that loader workers make ahead, two at least, in 10^6 bytes; besides it stands
    `train.dataloader_prefetch_factor`, in packs a worker."""


class TrainConfig(Section):
    """How it is trained."""

    output_dir: FilePath
    language_model_lr: LearningRate = 2e-5
    """0 freezes the part; so for the other two."""
    connector_lr: LearningRate = 1e-4
    vision_tower_lr: LearningRate = 0.0
    new_tokens_lr: LearningRate | None = None
    """Of the rows of single tokens where the language model does not train in full; None is its adapter's rate, or
    `NEW_TOKENS_LR` without one."""
    trainable_tokens: list[str] = Field(default_factory=list)
    """Added tokens that the checkpoint has already and whose rows train too, `*` standing for anything."""
    packs_per_step: Count = 4
    """Packs of one optimizer step, over all ranks and accumulation together."""
    method: Literal["sft", "dpo"] = "sft"
    """`sft` learns answers, `dpo` preferences between two."""
    loss_type: Literal["sigmoid", "robust", "hinge", "ipo", "simpo", "orpo"] = "sigmoid"
    """Of `dpo`."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Of `dpo`: what it costs to leave the reference."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Of `dpo` with `sigmoid` or `robust`: the share of pairs taken to be the wrong way round."""
    margin: Annotated[float, Field(ge=0)] = 0.0
    """Of `dpo` with `simpo`."""
    sft_weight: Annotated[float, Field(ge=0)] = 0.0
    """Of `dpo`: weight of the better answer's own loss."""
    reference: Literal["precomputed", "adapter_off", "copy"] = "precomputed"
    """Of `dpo`: whether the reference's judgement is computed before training, or asked in every step of the model
    without its adapters, or of a frozen copy."""
    reference_model: Annotated[str, Field(min_length=1)] | None = None
    """Of `dpo`: a hub id or a folder; None is the model that is trained, as it is at the start."""
    log_sample_ids: bool = False
    """Write which rows each step learned from to `samples.jsonl`."""
    resume_from_checkpoint: Annotated[Literal["auto", False] | FilePath, BeforeValidator(_not_a_number)] = "auto"
    """`auto` resumes from the newest whole checkpoint in the output folder, if there is one."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Settings of `transformers.TrainingArguments`, as given; in the run file they stand beside the others."""


class EvalConfig(Section):
    """How answers are generated and scored."""

    max_new_tokens: Count = 32
    batch_size: Count = 32
    max_rows: Count | None = None
    """Rows of each source; None is all."""
    at_start: bool = False
    at_end: bool = True
    """Evaluate once training is done; takes effect where there is an `eval_mixture`."""


class RunConfig(Section):
    """All settings of a run."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    eval: EvalConfig = Field(default_factory=EvalConfig)
    adapters: AdaptersConfig = Field(default_factory=AdaptersConfig)
    freeze: FreezeConfig = Field(default_factory=FreezeConfig)
    quantization: QuantizationConfig = Field(default_factory=QuantizationConfig)

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
        given = self.train.new_tokens_lr
        return (self.rate_of("language") or NEW_TOKENS_LR) if given is None else given

    def rate_of(self, part: PartName) -> float:
        """Return the learning rate of what trains in a tower, its weights or its adapter; 0 where nothing does."""
        train = self.train
        own = {"language": train.language_model_lr, "connector": train.connector_lr, "vision": train.vision_tower_lr}
        entry: AdapterConfig | None = dict(self.adapters.entries()).get(part)
        return entry.lr if entry is not None and entry.lr is not None else own[part]


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
    """Return the names a section has of its own; `train` takes those of `TrainingArguments` besides."""
    return tuple(name for name in SECTIONS[section].model_fields if (section, name) != ("train", "arguments"))
