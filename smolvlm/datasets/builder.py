"""From the run file's `data` section to measured rows and a plan: the one place here that sees config objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.config.schema import DataConfig
from smolvlm.datasets.bad_samples import BadSamples
from smolvlm.datasets.lengths import Budget, MeasuredSet, measure
from smolvlm.datasets.mixture import load_mixture
from smolvlm.datasets.plan import Plan, PlanSettings, plan_training
from smolvlm.datasets.rows import ConversationSet, SourceCount, load_conversations
from smolvlm.encoding.prompts import PromptSettings
from smolvlm.errors import ConfigError
from smolvlm.records import Conversation, SkippedRow


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedData:
    """Rows that can be trained, and in which steps they are."""

    measured: MeasuredSet
    plan: Plan
    skipped: tuple[SkippedRow, ...]
    counts: tuple[SourceCount, ...]


def read_mixture(mixture: Path | list[Any] | dict[str, Any], data: DataConfig) -> ConversationSet:
    """Read the rows of a mixture as a run's `data` section asks.

    Raises:
        ConfigError: the mixture is wrong.
        SampleError: a row is, and the run does not skip.
    """
    return load_conversations(
        load_mixture(mixture, base_dir=data.base_dir),
        on_bad_sample=data.on_bad_sample,
        max_bad_fraction=data.max_bad_fraction,
    )


def measure_rows(
    conversations: Sequence[Conversation], data: DataConfig, *, prompt: PromptSettings
) -> tuple[MeasuredSet, list[SkippedRow]]:
    """Measure rows from headers; returns what can be trained and what was skipped."""
    bad = BadSamples(policy=data.on_bad_sample, max_fraction=data.max_bad_fraction)
    measured = measure(
        conversations,
        encoder=prompt.encoder(loss_weighting=data.loss_weighting),
        settings=prompt.tiles,
        budget=Budget(max_tokens=data.max_tokens_per_pack, max_tiles=data.max_tiles_per_pack),
        bad_samples=bad,
    )
    return measured, bad.skipped


def plan_data(
    data: DataConfig,
    *,
    prompt: PromptSettings,
    packs_per_step: int,
    seed: int,
    num_epochs: float = 1.0,
    max_steps: int | None = None,
) -> PlannedData:
    """Read, measure and plan a run's training rows.

    Raises:
        ConfigError: the mixture is wrong or holds no row.
        SampleError: a row is, and the run does not skip.
    """
    rows = read_mixture(data.mixture, data)
    measured, skipped = measure_rows(rows.conversations, data, prompt=prompt)
    if not measured.conversations:
        raise ConfigError("the mixture holds no row to train on", where="data.mixture", fix="add a source with rows")
    settings = PlanSettings(
        budget=Budget(max_tokens=data.max_tokens_per_pack, max_tiles=data.max_tiles_per_pack),
        packs_per_step=packs_per_step,
        share_media=data.share_media,
        max_branches=data.max_branches,
        seed=seed,
    )
    plan = plan_training(measured.lengths, settings, num_epochs=num_epochs, max_steps=max_steps)
    return PlannedData(measured=measured, plan=plan, skipped=(*rows.skipped, *skipped), counts=rows.counts)
