"""The model of a run: loaded, with its adapters, frozen where the settings say, and the cache that goes with it.

In: a `RunConfig`. Out: a `RunModel`. Everything that settings do to a model before its first step is done here, in one
order: load, adapters, freeze, cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from smolvlm.config.adapters import AdapterConfig, PartName
from smolvlm.config.schema import RunConfig
from smolvlm.errors import ConfigError
from smolvlm.model.adapters import Adapters, attach_adapters
from smolvlm.model.load import Checkpoint, load_checkpoint
from smolvlm.model.peft_layers import is_adapter_folder
from smolvlm.model.towers import Tower, freeze
from smolvlm.model.vision_cache import VisionCache, open_vision_cache
from smolvlm.train.arguments import seed_of
from smolvlm.train.flops import ComputeCost, compute_cost

TOWER_OF: Mapping[PartName, Tower] = {
    "vision": "vision_tower",
    "connector": "connector",
    "language": "language_model",
}
"""The run file's `adapters` call them by the short names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunModel:
    """A model as a run trains it."""

    checkpoint: Checkpoint
    learning_rates: Mapping[Tower, float]
    """Of each tower, its adapter's where it has one; 0 is frozen."""
    adapters: Adapters | None
    vision_cache: VisionCache | None
    cost: ComputeCost

    def notes(self) -> list[str]:
        """Return what is to be said about it at the start, in lines."""
        return [str(self.adapters)] if self.adapters is not None else []


def check_model(config: RunConfig) -> None:
    """Refuse what can be known before anything is read.

    Raises:
        ConfigError: training cannot begin at what `model.path` names.
    """
    if is_adapter_folder(config.model.path):
        fix = "merge it first: smolvlm export FOLDER --to transformers --merge --out DIR"
        raise ConfigError("training begins at a model, and this is an adapter", where=config.model.path, fix=fix)


def load_run_model(config: RunConfig, *, uses_bf16: bool, resume: Path | None = None) -> RunModel:
    """Load the model and make it what the settings say.

    Args:
        uses_bf16: whether training runs under autocast, in which the cached features are then made.
        resume: the checkpoint that is gone on from.

    Raises:
        ConfigError: what is wrong, where, and how to mend it.
    """
    checkpoint = load_checkpoint(config.model.path, dtype=getattr(torch, config.model.dtype))
    rates = learning_rates(config)
    adapters = _attach_adapters(config, checkpoint, rates, resume=resume)
    freeze(checkpoint.model, rates)
    return RunModel(
        checkpoint=checkpoint,
        learning_rates=rates,
        adapters=adapters,
        vision_cache=_vision_cache(config, checkpoint.model, rates, uses_bf16=uses_bf16),
        cost=compute_cost(checkpoint.model.config, rates, adapted=adapters.kinds if adapters else ()),
    )


def learning_rates(config: RunConfig) -> dict[Tower, float]:
    """Return the learning rate of each tower, its adapter's where it has one; 0 is frozen."""
    return {tower: config.rate_of(part) for part, tower in TOWER_OF.items()}


def _attach_adapters(
    config: RunConfig, checkpoint: Checkpoint, rates: Mapping[Tower, float], *, resume: Path | None
) -> Adapters | None:
    """Put the adapters into the model that the settings ask for; None where they ask for none."""
    kinds: dict[Tower, AdapterConfig] = {
        TOWER_OF[part]: entry for part, entry in config.adapters.entries() if entry.is_adapter
    }
    if not kinds:
        return None
    return attach_adapters(
        checkpoint.model,
        kinds,
        base=config.model.path,
        seed=seed_of(config.train),
        whole=[tower for tower, rate in rates.items() if rate > 0 and tower not in kinds],
        resume=resume,
    )


def _vision_cache(
    config: RunConfig, model: Any, rates: Mapping[Tower, float], *, uses_bf16: bool
) -> VisionCache | None:
    """Open the cache where nothing in the tower trains, no adapter either."""
    if not config.data.vision_cache or rates["vision_tower"] > 0:
        return None
    keeps_connector = rates["connector"] == 0
    model.caches_connector = keeps_connector
    return open_vision_cache(
        config.data.vision_cache_dir or Path(config.train.output_dir) / "vision_cache",
        model,
        compute_dtype="bfloat16" if uses_bf16 or config.model.dtype == "bfloat16" else "float32",
        keeps_connector=keeps_connector,
    )
