"""From measured steps to the table: samples a second, how much faster ours is, and whether the
losses agree."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from benchmarks.job import Phase, Scenario, System, Variant
from benchmarks.turns import SystemResult

LOSS_TOLERANCE = 1e-4
"""Largest relative difference of two systems' first losses in float32."""
NAMES: Mapping[System, str] = {
    "ours": "smolvlm",
    "trl": "TRL SFTTrainer",
    "trl_default": "TRL SFTTrainer, checkpointing on (its default)",
    "trainer": "transformers Trainer",
}
_SCENARIO_NAMES: Mapping[Scenario, str] = {
    "one_question": "(a) one question a picture",
    "five_questions": "(b) five questions a picture",
}
_PASS_NAMES: Mapping[tuple[Variant, Phase], str] = {
    ("frozen_tower", "first"): "frozen tower, first pass (our cache cold)",
    ("frozen_tower", "second"): "frozen tower, second pass (our cache warm)",
    ("all_trained", "first"): "everything trained",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of the table."""

    system: System
    scenario: Scenario
    variant: Variant
    phase: Phase
    samples_per_s: float
    """Median over the rounds; a sample is a question with its answer."""
    samples_per_s_min: float
    samples_per_s_max: float
    ours_is_faster: float
    """Median over the rounds of this system's seconds divided by ours, on the same rows; 1 for
    ours."""
    ours_needs_less_cpu: float
    """The same of processor seconds."""
    padding_share: float
    """Padded tokens of all tokens, over all batches of the job."""
    peak_rss_bytes: int
    """Of the worker, over the whole job (both passes)."""
    first_loss: float


def result_lines(results: Sequence[SystemResult]) -> list[Line]:
    """Return the lines of one scenario and variant, pass by pass; `results` holds ours."""
    ours = next(result for result in results if result.job.system == "ours")
    phases = [phase for (variant, phase) in _PASS_NAMES if variant == ours.job.variant]
    return [_line(result, ours, phase) for phase in phases for result in results]


def _line(result: SystemResult, ours: SystemResult, phase: Phase) -> Line:
    own = [step for step in result.steps if step.phase == phase]
    reference = [step for step in ours.steps if step.phase == phase]
    rates = [step.num_rows / step.seconds for step in own]
    pairs = list(zip(own, reference, strict=True))
    return Line(
        system=result.job.system,
        scenario=result.job.scenario,
        variant=result.job.variant,
        phase=phase,
        samples_per_s=statistics.median(rates),
        samples_per_s_min=min(rates),
        samples_per_s_max=max(rates),
        ours_is_faster=statistics.median(
            step.seconds / our_step.seconds for step, our_step in pairs
        ),
        ours_needs_less_cpu=statistics.median(
            step.cpu_s / our_step.cpu_s for step, our_step in pairs
        ),
        padding_share=result.padding_share,
        peak_rss_bytes=result.peak_rss_bytes,
        first_loss=result.first_loss,
    )


def loss_difference(results: Sequence[SystemResult]) -> float:
    """Return the largest relative difference of a system's first loss from ours."""
    ours = next(result.first_loss for result in results if result.job.system == "ours")
    return max(abs(result.first_loss - ours) / abs(ours) for result in results)


def result_table(lines: Sequence[Line], *, title: str) -> Table:
    """Return the table for the terminal."""
    table = Table(title=title, title_justify="left")
    for heading in ("system", "scenario", "variant", "samples/s", "min-max"):
        table.add_column(heading)
    for heading in ("ours is faster", "in CPU time", "padding", "peak RSS, GB", "first loss"):
        table.add_column(heading, justify="right")
    for line in lines:
        table.add_row(
            NAMES[line.system],
            _SCENARIO_NAMES[line.scenario],
            _PASS_NAMES[line.variant, line.phase],
            f"{line.samples_per_s:.3g}",
            f"{line.samples_per_s_min:.3g}-{line.samples_per_s_max:.3g}",
            f"{line.ours_is_faster:.2f}x",
            f"{line.ours_needs_less_cpu:.2f}x",
            f"{line.padding_share:.1%}",
            f"{line.peak_rss_bytes / 1e9:.1f}",
            f"{line.first_loss:.6f}",
            end_section=line.system == "trainer",
        )
    return table


def as_json(results: Sequence[SystemResult]) -> list[dict]:
    """Return every measured step, for the output file."""
    return [
        {
            "system": result.job.system,
            "scenario": result.job.scenario,
            "variant": result.job.variant,
            "steps": [asdict(step) for step in result.steps],
            "device": result.device,
            "num_tokens": result.num_tokens,
            "num_padded": result.num_padded,
            "conversational_rows": result.conversational,
        }
        for result in results
    ]
