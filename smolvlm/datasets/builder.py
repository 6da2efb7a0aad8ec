"""From a run's `data` section to measured rows and a plan.

The one file here that sees config objects.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from smolvlm.config.data import DataConfig
from smolvlm.config.method import RowKind
from smolvlm.datasets.encoding.prompts import PromptSettings, read_prompt_settings
from smolvlm.datasets.packing.length_cache import measure_sources
from smolvlm.datasets.packing.lengths import Budget
from smolvlm.datasets.packing.measured import (
    MeasuredSet,
    RowRequirements,
    SourceCount,
    settle_rows,
)
from smolvlm.datasets.packing.plan import Plan, PlanSettings, plan_training
from smolvlm.datasets.rows.conversations import OpenSource, open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.row_table import RowTable
from smolvlm.datasets.rows.sources import SourceSpec, UrlPolicy
from smolvlm.datasets.rows.tables import open_table
from smolvlm.media.video.frames import FrameSettings
from smolvlm.protocols import Processor
from smolvlm.records import SkippedRow

Measure = Callable[[Sequence[OpenSource], PromptSettings], list[pa.Table]]
"""Sources in, sizes of their used rows out (`lengths.SIZES`)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedData:
    """Rows that can be trained, and in which steps they are."""

    measured: MeasuredSet
    plan: Plan

    @property
    def skipped(self) -> tuple[SkippedRow, ...]:
        return self.measured.skipped

    @property
    def counts(self) -> tuple[SourceCount, ...]:
        return self.measured.counts


def budget_of(data: DataConfig) -> Budget:
    """Return what a pack may hold."""
    return Budget(max_tokens=data.max_tokens_per_pack, max_tiles=data.max_tiles_per_pack)


def read_prompt(
    processor: Processor,
    data: DataConfig,
    *,
    context_tokens: int | None = None,
    num_rows: int | None = None,
) -> PromptSettings:
    """Return what encoding needs to know of a checkpoint, as a run's `data` section asks.

    Args:
        processor: the checkpoint's.
        data: the run's section.
        context_tokens: the longest conversation that its model holds; None is without end.
        num_rows: of its model's embedding; None is as many as the tokenizer has tokens.

    Raises:
        ConfigError: the processor lacks something, or its sizes and the section's do not fit each
            other.
    """
    prompt = read_prompt_settings(
        processor,
        image_splitting=data.image_splitting,
        longest_edge_px=data.longest_edge_px,
        frames=FrameSettings(
            fps=data.fps,
            max_frames=data.max_frames,
            sampling=data.sampling,
            average_frames=data.average_frames,
        ),
        video_backend=data.video_backend,
        wording=data.prompt_wording,
    )
    return replace(
        prompt,
        text=prompt.text if num_rows is None else prompt.text.within_rows(num_rows),
        media=replace(
            prompt.media,
            max_image_pixels=data.max_image_pixels,
            max_decode_s=data.max_decode_s,
        ),
        context_tokens=context_tokens,
        supervise=data.supervise,
    )


def open_mixture(
    mixture: Path | list[object] | dict[str, object], data: DataConfig
) -> tuple[OpenSource, ...]:
    """Open the sources of a mixture as a run's `data` section asks.

    Raises:
        ConfigError: the mixture is wrong.
        SampleError: a file of rows is.
    """
    return open_sources(_specs(mixture, data))


def open_tables(
    mixture: Path | list[object] | dict[str, object], data: DataConfig
) -> list[RowTable]:
    """Open the files of a mixture as `open_mixture` does, and choose no rows.

    Raises:
        ConfigError: the mixture is wrong.
        SampleError: a file of rows is.
    """
    return [open_table(spec) for spec in _specs(mixture, data)]


def _specs(
    mixture: Path | list[object] | dict[str, object], data: DataConfig
) -> Iterator[SourceSpec]:
    specs = load_mixture(
        mixture,
        base_dir=data.base_dir,
        allow_outside_root=data.allow_outside_root,
        urls=url_policy(data),
        keeps_mark_newlines=data.mark_newlines == "keep",
        name="data.mixture",
    )
    return (replace(spec, max_row_bytes=data.max_row_bytes) for spec in specs)


def url_policy(data: DataConfig) -> UrlPolicy:
    """Return which addresses a run's rows may name."""
    if not data.allow_urls:
        return "none"
    return "all" if data.allow_private_urls else "public"


def measure_mixture(
    mixture: Path | list[object] | dict[str, object],
    data: DataConfig,
    *,
    prompt: PromptSettings,
    kind: RowKind = "conversation",
    max_rows: int | None = None,
    measure: Measure = measure_sources,
) -> MeasuredSet:
    """Read and measure the rows of a mixture as a run's `data` section asks.

    Args:
        mixture: a file, or the sources themselves.
        data: the run's section.
        prompt: of the checkpoint.
        kind: what its rows must be.
        max_rows: the first so many rows of each source; None is all.
        measure: returns the sizes of each source's used rows.

    Raises:
        ConfigError: the mixture is wrong.
        SampleError: a row is, and the run does not skip.
    """
    sources = open_mixture(mixture, data)
    if max_rows is not None:
        sources = tuple(replace(source, rows=source.rows[:max_rows]) for source in sources)
    return settle_rows(
        sources,
        measure(sources, prompt),
        requirements=RowRequirements(
            budget=budget_of(data), kind=kind, context_tokens=prompt.context_tokens
        ),
        on_bad_sample=data.on_bad_sample,
        max_bad_fraction=data.max_bad_fraction,
    )


def one_pass(data: DataConfig) -> PlanSettings:
    """Return how packs are planned that are gone through once without learning."""
    return PlanSettings(
        budget=budget_of(data),
        packs_per_step=1,
        share_media=data.share_media,
        max_branches=data.max_branches,
        seed=0,
    )


def plan_data(
    measured: MeasuredSet,
    data: DataConfig,
    *,
    packs_per_step: int,
    seed: int,
    num_epochs: float = 1.0,
    max_steps: int | None = None,
) -> PlannedData:
    """Plan a run's training rows as its `data` section asks; see `plan_training`."""
    settings = PlanSettings(
        budget=budget_of(data),
        packs_per_step=packs_per_step,
        share_media=data.share_media,
        max_branches=data.max_branches,
        seed=seed,
    )
    plan = plan_training(measured.lengths, settings, num_epochs=num_epochs, max_steps=max_steps)
    return PlannedData(measured=measured, plan=plan)
