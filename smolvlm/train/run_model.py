"""The model of a run: loaded, with its adapters, frozen where the settings say, and the cache that
goes with it.

In: a `RunConfig`. Out: a `RunModel`. Everything that settings do to a model before its first step
is done here, in one order: load, adapters, freeze, cache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from smolvlm.checkpoints.adapters import Adapters, TrainedBeside, attach_adapters
from smolvlm.checkpoints.base import Base, base_of_run
from smolvlm.checkpoints.frozen_parts import frozen_parts
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint, check_checkpoint_weights
from smolvlm.checkpoints.new_tokens import token_ids
from smolvlm.checkpoints.peft_layers import MERGE_COMMAND, is_adapter_folder
from smolvlm.checkpoints.quantization import QuantizedLayers, quantized_layers
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.schema import DataConfig, ModelConfig, RunConfig
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.errors import ConfigError
from smolvlm.model.attention.varlen import check_head_size
from smolvlm.model.checkpointing import checkpointed_towers
from smolvlm.model.fused_layers import fuse_layers, liger_kernels
from smolvlm.model.towers import TOWER_OF, Tower
from smolvlm.model.vision import tower_modules
from smolvlm.model.vision_cache import VisionCache, feature_shape, open_vision_cache
from smolvlm.protocols import VisionLanguageConfig, VisionLanguageModel
from smolvlm.train.arguments import seed_of
from smolvlm.train.flops import ComputeCost, compute_cost
from smolvlm.train.trackers import forget_place


@dataclass(frozen=True, kw_only=True, slots=True)
class RunModel:
    """A model as a run trains it."""

    checkpoint: Checkpoint
    learning_rates: LearningRates
    new_tokens: Mapping[str, int]
    """Their ids."""
    adapters: Adapters | None
    quantized: QuantizedLayers | None
    vision_cache: VisionCache | None
    """Of the rows that are trained on."""
    held_out_cache: VisionCache | None
    """Of those that are evaluated: the same, or there alone where the run shows none of its own
    tiles twice."""
    cost: ComputeCost

    def notes(self) -> list[str]:
        """Return what is to be said about it at the start, in lines."""
        ids = ", ".join(f"{token} {number}" for token, number in self.new_tokens.items())
        notes = [f"{'new tokens':<16}{ids}"] if ids else []
        notes += [str(part) for part in (self.quantized, self.adapters) if part is not None]
        rate = self.learning_rates.token_rows
        return [*notes, f"{'token rows':<16}learn at {rate:g}"] if rate else notes


def check_model(config: RunConfig) -> Base:
    """Check what is known before rows and weights are read; return the checkpoint's facts.

    Raises:
        ConfigError: training cannot begin at what `model.path` names, or what is to be frozen does
            not fit it.
    """
    if is_adapter_folder(config.model.path):
        fix = f"merge it first: {MERGE_COMMAND}"
        raise ConfigError(
            "training begins at a model, and this is an adapter", where=config.model.path, fix=fix
        )
    base = base_of_run(config.model)
    if config.model.attention == "varlen":
        check_head_size(base.config.text_config)
    learning_rates(config, base.config)
    _check_room(config, base)
    check_checkpoint_weights(config.model.path, base.config)
    return base


def _check_room(config: RunConfig, base: Base) -> None:
    """Refuse new tokens without rows in the base beside adapters, which load onto it as it is."""
    names = config.model.new_tokens
    if not names or not (config.token_rows_lr or adapter_kinds(config)):
        return
    needed, num_rows = base.placement.num_tokens, base.config.text_config.vocab_size
    if needed > num_rows:
        what = (
            f"they need {needed:,} rows, {config.model.path} has {num_rows:,}, and an adapter "
            f"cannot add any"
        )
        tokens = " ".join(f"--add-token '{new.token}'" for new in names)
        fix = (
            f"give the base the tokens: smolvlm build --base {config.model.path} {tokens} --out "
            f"DIR; train on DIR"
        )
        raise ConfigError(what, where="model.new_tokens", fix=fix)


def prompt_of_model(model: ModelConfig, data: DataConfig) -> PromptSettings:
    """Read of a checkpoint what encoding and measuring need to know; no weights are read.

    Raises:
        ConfigError: there is no such checkpoint, or the settings do not fit it.
    """
    return base_of_run(model).prompt(data)


def check_rows(config: RunConfig, *, num_tiles: int) -> None:
    """Refuse rows that nothing could be learned from.

    Args:
        num_tiles: of all rows.

    Raises:
        ConfigError: vision tower or connector alone train, and no row shows them anything.
    """
    if not num_tiles and not config.rate_of("language") and not config.token_rows_lr:
        what = "no row has a picture or a clip, and nothing of the language model trains"
        fix = "set train.language_model_lr above 0, or name rows with pictures"
        raise ConfigError(what, where="data.mixture", fix=fix)


def load_run_model(
    config: RunConfig,
    base: Base,
    *,
    uses_bf16: bool,
    repeats_tiles: bool = True,
    resume: Path | None = None,
    device: torch.device | None = None,
) -> RunModel:
    """Load the model and make it what the settings say.

    Args:
        config: the run's settings.
        base: of them.
        uses_bf16: whether training runs under autocast, in which the cached features are then made.
        repeats_tiles: whether the run shows any tile twice.
        resume: the checkpoint being resumed.
        device: where a quantised model is loaded to; the trainer moves any other.

    Raises:
        ConfigError: what is wrong, where, and how to fix it.
    """
    checkpoint = load_run_checkpoint(config, base, device=device)
    quantized = quantized_layers(checkpoint.model, config.quantization)
    rates = learning_rates(config, checkpoint.model.config)
    adapters = attach_run_adapters(config, checkpoint, rates, resume=resume)
    freeze(checkpoint.model, rates)
    towers = checkpointed_towers(config.train.activation_checkpointing)
    checkpoint.model.checkpointed_towers = towers
    if config.train.arguments.get("use_liger_kernel"):
        fuse_layers(checkpoint.model, liger_kernels(device.type if device else "cpu"))
    if config.train.private:
        forget_place(checkpoint.model.config)
    cache = _vision_cache(config, checkpoint.model, rates, uses_bf16=uses_bf16)
    is_for_training = repeats_tiles or config.data.vision_cache_dir is not None
    return RunModel(
        checkpoint=checkpoint,
        learning_rates=rates,
        new_tokens={
            new.token: checkpoint.processor.tokenizer.convert_tokens_to_ids(new.token)
            for new in config.model.new_tokens
        },
        adapters=adapters,
        quantized=quantized,
        vision_cache=cache if is_for_training else None,
        held_out_cache=cache,
        cost=compute_cost(checkpoint.model),
    )


def load_run_checkpoint(
    config: RunConfig, base: Base | None = None, *, device: torch.device | None = None
) -> Checkpoint:
    """Load a run's checkpoint as the settings of model and quantisation say.

    Raises:
        ConfigError: there is no such checkpoint, or the settings do not fit it.
    """
    base = base or base_of_run(config.model)
    dtype = getattr(torch, config.model.dtype)
    return base.load(dtype=dtype, quantization=config.quantization, device=device)


def load_answering_checkpoint(
    config: RunConfig, *, device: torch.device | str, quantized_on: torch.device | None = None
) -> Checkpoint:
    """Load a checkpoint that is to answer and not to train, on a device.

    A tower that its run froze is frozen here too: it then computes as it did there.

    Args:
        config: the settings of its run, or the defaults.
        device: where it answers.
        quantized_on: where a quantised model is loaded to; it cannot be moved afterwards.

    Raises:
        ConfigError: as `load_run_checkpoint`.
    """
    checkpoint = load_run_checkpoint(config, device=quantized_on)
    if not config.quantization.bits:
        checkpoint.model.to(device)
    if not config.rate_of("vision"):
        tower_modules(checkpoint.model)[0].requires_grad_(False)
    return checkpoint


def learning_rates(config: RunConfig, model_config: VisionLanguageConfig) -> LearningRates:
    """Return which parameters train, and at which rate.

    Args:
        model_config: the checkpoint's.

    Raises:
        ConfigError: what is to be frozen does not fit the checkpoint, or leaves nothing of a tower.
    """
    rates: dict[Tower, float] = {tower: config.rate_of(part) for part, tower in TOWER_OF.items()}
    adapted = adapter_kinds(config)
    return LearningRates(
        full={tower: rate for tower, rate in rates.items() if tower not in adapted},
        adapter={tower: rate for tower, rate in rates.items() if tower in adapted},
        token_rows=config.token_rows_lr,
        frozen=frozen_parts(config.freeze, model_config),
    )


def adapter_kinds(config: RunConfig) -> dict[Tower, AdapterConfig]:
    """Return the adapters that the settings ask for, by tower."""
    return {TOWER_OF[part]: entry for part, entry in config.adapters.entries() if entry.is_adapter}


def attach_run_adapters(
    config: RunConfig, checkpoint: Checkpoint, rates: LearningRates, *, resume: Path | None = None
) -> Adapters | None:
    """Put the adapters into the model that the settings ask for; None where they ask for none."""
    kinds = adapter_kinds(config)
    rows: Sequence[int] = ()
    if rates.token_rows:
        rows = token_ids(
            checkpoint.processor, config.model.new_tokens, config.train.trainable_tokens
        )
    if not kinds and not rows:
        return None
    return attach_adapters(
        checkpoint.model,
        kinds,
        base=config.model.path,
        seed=seed_of(config.train),
        beside=TrainedBeside(
            whole=[tower for tower, rate in rates.full.items() if rate > 0], token_rows=rows
        ),
        resume=resume,
    )


def keeps_features(config: RunConfig, rates: LearningRates) -> bool:
    """Say whether a tile's features are the same in every step and may be kept: nothing in the
    tower trains, no adapter either."""
    return config.data.vision_cache and not rates.of_tower("vision_tower")


def feature_dtype(config: RunConfig, *, uses_bf16: bool) -> str:
    """Return the type that features are kept in, by torch's name: the one that the tower computes
    its products in."""
    if uses_bf16 or config.model.dtype == "bfloat16":
        return "bfloat16"
    return "float16" if config.train.arguments.get("fp16") else "float32"


def feature_bytes(
    config: RunConfig, model_config: VisionLanguageConfig, *, uses_bf16: bool
) -> int | None:
    """Return what a tile's kept features take; None where none are kept.

    Args:
        config: the settings.
        model_config: the checkpoint's.
        uses_bf16: whether training runs under bfloat16 autocast.
    """
    rates = learning_rates(config, model_config)
    if not keeps_features(config, rates):
        return None
    rows, width = feature_shape(model_config, keeps_connector=not rates.of_tower("connector"))
    dtype = getattr(torch, feature_dtype(config, uses_bf16=uses_bf16))
    return rows * width * dtype.itemsize


def cache_folder(config: RunConfig) -> Path:
    """Return where a run's features are kept."""
    return config.data.vision_cache_dir or Path(config.train.output_dir) / "vision_cache"


def _vision_cache(
    config: RunConfig, model: VisionLanguageModel, rates: LearningRates, *, uses_bf16: bool
) -> VisionCache | None:
    if not keeps_features(config, rates):
        return None
    keeps_connector = not rates.of_tower("connector")
    model.caches_connector = keeps_connector
    return open_vision_cache(
        cache_folder(config),
        model,
        compute_dtype=feature_dtype(config, uses_bf16=uses_bf16),
        keeps_connector=keeps_connector,
        max_gb=config.data.vision_cache_max_gb,
    )
