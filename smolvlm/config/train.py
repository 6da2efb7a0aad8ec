"""The run file's `train`: how it is trained.

In a run file the settings of `transformers.TrainingArguments` and those of the method may stand
beside the others; here they are gathered under `arguments` and `method`.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer
from pydantic.fields import FieldInfo

from smolvlm.config.checkpointing import Checkpointing, checkpointing_problems
from smolvlm.config.context_ranks import ContextExchange, context_problems
from smolvlm.config.engine import EngineName, with_engine
from smolvlm.config.master_weights import master_weights_problems
from smolvlm.config.method import (
    METHODS,
    MethodConfig,
    SftMethod,
    with_flat_method,
    with_method_section,
)
from smolvlm.config.problems import Problem
from smolvlm.config.section import PATH_WORDS, Count, FilePath, LearningRate, Section
from smolvlm.config.training_arguments import argument_problem
from smolvlm.config.yaml_text import Settings

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig


def _not_a_number(value: object) -> object:
    if (
        isinstance(value, int) and value is not False
    ):  # 0 equals False, and true names no checkpoint
        raise ValueError("a number is no checkpoint")
    return value


class TrainConfig(Section):
    """How it is trained."""

    FIELD_WORDS: ClassVar[Mapping[str, str]] = {
        "method": f"must be {' or '.join(map(repr, METHODS))}",
        "output_dir": PATH_WORDS,
        "activation_checkpointing": "must be true, false, 'language_model' or 'vision_tower'",
        "resume_from_checkpoint": "must be `auto`, `false` or a checkpoint folder",
    }

    output_dir: FilePath
    """Folder of the run: its model, checkpoints, log and report."""
    language_model_lr: LearningRate = 2e-5
    """Learning rate of the language model, embeddings and head included; 0 freezes it."""
    connector_lr: LearningRate = 1e-4
    """Learning rate of what joins the vision tower to the language model; 0 freezes it."""
    vision_tower_lr: LearningRate = 0.0
    """Learning rate of the vision tower; 0 freezes it, and its features are kept."""
    new_tokens_lr: LearningRate | None = None
    """Of the rows of single tokens where the language model does not train in full; None is its
    adapter's rate, or `NEW_TOKENS_LR` without one."""
    trainable_tokens: list[str] = Field(default_factory=list)
    """Added tokens that the checkpoint has already and whose rows train too, `*` standing for
    anything."""
    packs_per_step: Count = 4
    """Packs of one optimizer step, over all ranks and accumulation together."""
    engine: EngineName = "ddp"
    """How ranks share the work: DDP copies the model to each; FSDP2 gives each a share of weights,
    gradients and moments; DeepSpeed does as its file says."""
    master_weights: bool = False
    """Hold the weights of linear layers in bfloat16 and step float32 copies of them: the numbers of
    bfloat16 autocast to the bit, in fewer operations. Needs `bf16` and `model.dtype: float32`."""
    context_ranks: Count = 1
    """Ranks that hold each pack together, a part of its tokens each: for sequences whose
    activations one device cannot hold. Divides the ranks of the run."""
    context_exchange: ContextExchange = "gather"
    """How those ranks attend to each other's tokens: `gather` keys and values of all on each, a
    layer at a time; or let them go round in a `ring`, where even those do not fit."""
    activation_checkpointing: Checkpointing = False
    """Which towers compute their activations again in the backward pass instead of keeping them:
    less memory for more time, and the same gradients; true is both."""
    method: Annotated[MethodConfig, Field(discriminator="type")] = SftMethod()
    """What is learned, and how; a run file may write its settings beside it."""
    log_sample_ids: bool = False
    """Write which rows each step learned from to `samples.jsonl`."""
    private: bool = False
    """Keep rows, pictures and paths out of the report, the model card and what trackers get;
    numbers and the names of sources stay."""
    resume_from_checkpoint: Annotated[
        Literal["auto", False] | FilePath, BeforeValidator(_not_a_number)
    ] = "auto"
    """`auto` resumes from the newest whole checkpoint in the output folder, if there is one."""
    step_timeout_s: Annotated[float, Field(gt=0)] = 1800.0
    """Where several ranks train: how long one may take for a pack, or to load it, before it ends
    with a message and the job with it. Evaluation and saving are not timed."""
    on_changed_data: Literal["error", "warn"] = "error"
    """What happens where rows, or the files that they name, are not those that the run began with:
    `error` ends it, `warn` goes on with them as they are."""
    verify_data: bool = False
    """Measure all rows anew and read all their media before the first step, to compare them with
    what they were; without it media are compared as they are read."""
    arguments: Settings = Field(default_factory=dict)
    """Settings of `transformers.TrainingArguments`, as given; in the run file they stand beside the
    others."""

    @model_serializer(mode="wrap")
    def _as_written(self, as_mapping: SerializerFunctionWrapHandler) -> Settings:
        """Return the section with its method in the flat spelling."""
        flat: Settings = {}
        for name, value in as_mapping(self).items():
            flat |= {"method": value.pop("type"), **value} if name == "method" else {name: value}
        return flat

    @classmethod
    def settings(cls) -> Mapping[str, FieldInfo]:
        """Return the fields but `arguments`, and the settings of all methods."""
        sections = (section.model_fields for section in METHODS.values())
        flat = {name: field for fields in sections for name, field in fields.items()}
        fields = cls.model_fields | flat
        return {name: fields[name] for name in fields if name not in ("type", "arguments")}

    @classmethod
    def plain(
        cls, content: Settings, *, overridden: Collection[str], problems: list[Problem]
    ) -> Settings:
        """Return the section in the flat spelling, with one length of training."""
        for name, other in (("max_steps", "num_train_epochs"), ("num_train_epochs", "max_steps")):
            if name in overridden and other not in overridden:
                content = {key: value for key, value in content.items() if key != other}
        content = with_engine(content, problems=problems)
        return with_flat_method(content, overridden=overridden, problems=problems)

    @classmethod
    def as_fields(cls, content: Settings, *, run_dir: Path, problems: list[Problem]) -> Settings:
        """Return the section's fields; the types of `arguments` are checked here."""
        names = cls.settings()
        arguments = {name: value for name, value in content.items() if name not in names}
        for name, value in arguments.items():
            problem = argument_problem(name, value, base_dir=run_dir)
            if problem is not None:
                problems.append(problem)
        known = {name: value for name, value in content.items() if name in names}
        return with_method_section(known, problems=problems) | {"arguments": arguments}

    @classmethod
    def written_place(cls, place: tuple[str, ...]) -> tuple[str, ...]:
        """Return where a method's setting stands in the flat spelling."""
        return place[2:] if place[0] == "method" and len(place) > 2 else place

    def problems(self, config: "RunConfig") -> Iterator[Problem]:
        """Yield what is wrong with the method, ranks that share a pack, master weights, and
        activations that are computed again."""
        yield from self.method.problems(config)
        yield from context_problems(config)
        yield from master_weights_problems(config)
        yield from checkpointing_problems(config)
