"""Settings under which a run fits into so much memory, the fastest first.

In: a run and a limit. Out: `Proposal`s: overrides as they are pasted behind the command. What is
tried: activation checkpointing of one tower or of both, smaller packs (more of them a step, so that
a step learns from as many), and then what changes the training itself, and says so: a frozen tower,
LoRA in the language model, over a base in 8 or 4 bits.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from smolvlm.config.schema import RunConfig
from smolvlm.datasets.packing.lengths import LengthTable
from smolvlm.errors import ConfigError
from smolvlm.model.checkpointing import WITH_LAYERS
from smolvlm.plan.run_plan import RunPlan

Reload = Callable[[Sequence[str]], RunConfig]
"""Gives the run's settings with overrides; raises ConfigError where they cannot stand."""
PlanWith = Callable[[RunConfig], RunPlan]
LORA_LR = 1e-4
"""The rate that is proposed with an adapter."""
SHRINKINGS = (1, 2, 4)
"""Parts that a pack is cut into."""
_UNITS = {"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "KI": 2**10, "MI": 2**20, "GI": 2**30}


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposal:
    """Settings that fit."""

    overrides: tuple[str, ...]
    plan: RunPlan
    changes_training: bool
    """Whether something else is learned than the run file asks for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Way:
    """A way of training."""

    overrides: tuple[str, ...]
    changes_training: bool
    trains_tower: bool = False


def bytes_of(text: str) -> int:
    """Return the bytes that `16GB`, `15.5 GiB` or `900MB` mean.

    Raises:
        ConfigError: it means none.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMG]I?)B?\s*", text.upper())
    size = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not size:
        fix = "write a size, such as 16GB or 900MB"
        raise ConfigError("this is no size of memory", where=f"--fits {text}", fix=fix)
    return int(size)


def proposals(
    config: RunConfig,
    lengths: LengthTable,
    *,
    limit_bytes: int,
    reload: Reload,
    plan_with: PlanWith,
) -> list[Proposal]:
    """Return settings that fit, the fastest first.

    Args:
        config: the run's settings.
        lengths: of its rows: no pack may be smaller than one of them.
        limit_bytes: what the device has.
        reload: gives the settings with overrides.
        plan_with: plans them.
    """
    found: list[Proposal] = []
    for way in _ways(config):
        for checkpointing in _checkpointing(config, trains_tower=way.trains_tower):
            for shrunk in _shrunk_packs(config, lengths):
                overrides = (*way.overrides, *checkpointing, *shrunk)
                try:
                    plan = plan_with(reload(overrides))
                except ConfigError:
                    break  # this way cannot be gone with the run's other settings
                if plan.memory.total <= limit_bytes:
                    found.append(
                        Proposal(
                            overrides=overrides, plan=plan, changes_training=way.changes_training
                        )
                    )
                    break  # smaller packs are no faster
    return sorted(found, key=lambda proposal: proposal.plan.time.total_s)


def _ways(config: RunConfig) -> Iterator[_Way]:
    """Yield the run's own way and those that take less, the least changed first."""
    trains_tower = config.rate_of("vision") > 0
    yield _Way(overrides=(), changes_training=False, trains_tower=trains_tower)
    frozen = ("train.vision_tower_lr=0",) if trains_tower else ()
    if frozen:
        yield _Way(overrides=frozen, changes_training=True)
    adapted = ()
    if config.trains_language_whole:
        adapted = ("adapters.language.type=lora", f"train.language_model_lr={LORA_LR:g}", *frozen)
        yield _Way(overrides=adapted, changes_training=True)
    if config.quantization.bits is None and (adapted or config.adapters.language is not None):
        for bits in (8, 4):
            yield _Way(overrides=(*adapted, f"quantization.bits={bits}"), changes_training=True)


def _checkpointing(config: RunConfig, *, trains_tower: bool) -> Iterator[tuple[str, ...]]:
    """Yield the run's own choice, and those that keep less or take less time."""
    yield ()
    chosen = config.train.activation_checkpointing
    if trains_tower:
        yield from (_choose(tower) for tower in WITH_LAYERS if tower != chosen)
    if chosen is not True and (trains_tower or not chosen):
        yield _choose("true")


def _choose(choice: str) -> tuple[str, ...]:
    return (f"train.activation_checkpointing={choice}",)


def _shrunk_packs(config: RunConfig, lengths: LengthTable) -> Iterator[tuple[str, ...]]:
    """Yield smaller budgets of a pack, down to the largest row, with as many more packs a step."""
    data, least = config.data, (1, 1)
    if len(lengths):
        least = int(lengths.num_tokens.max()), max(int(lengths.num_tiles.max()), 1)
    for parts in SHRINKINGS:
        tokens, tiles = data.max_tokens_per_pack // parts, data.max_tiles_per_pack // parts
        if parts == 1:
            yield ()
        elif tokens >= least[0] and tiles >= least[1]:
            yield (
                f"data.max_tokens_per_pack={tokens}",
                f"data.max_tiles_per_pack={tiles}",
                f"train.packs_per_step={config.train.packs_per_step * parts}",
            )
