"""From a work's measured steps to a row of the table, or the reason why there is none.

A ratio is a peer's processor time divided by ours on the same rows: the median over paired steps.
It stands only beside losses that are equal within the work's bound in every step that both took,
the later ones included, which no two systems reach that learn differently.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.bench_works import Span, Work
from benchmarks.job import Phase, Precision, System
from benchmarks.turns import MeasuredStep, SystemResult


class LossesDifferError(RuntimeError):
    """The systems did not learn the same, so that their times compare nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """How many times as fast as a peer ours is, in processor time."""

    median: float
    least: float
    most: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What a row was measured with."""

    precision: Precision
    num_threads: int
    layers: tuple[int, int]
    num_rows: int
    """Of a step."""
    cpu: str
    versions: Mapping[str, str]
    is_tiny: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchRow:
    """One row of the table."""

    key: str
    title: str
    setting: Setting
    ratios: Mapping[System, Ratio]
    cpu_s: Mapping[System, float]
    """Processor seconds of what is compared, medians."""
    above_model_bytes: Mapping[System, int]
    """Most resident memory of a step over what was there before, weights, gradients and the
    optimizer's moments."""
    loss_difference: float
    loss_bound: float
    """What it may be."""
    matrix_share: float | None = None
    """Of the rate of one large product, of a first step's FLOPs in its processor time."""
    wall_s: float = 0.0
    """Of measuring all of it."""
    goal: float | None = None
    limit: float | None = None
    floor: float | None = None

    @property
    def is_below_floor(self) -> bool:
        return self.floor is not None and self.ratios["trl"].median < self.floor


def bench_row(
    work: Work, results: Sequence[SystemResult], setting: Setting, *, wall_s: float
) -> BenchRow:
    """Return a work's row.

    Raises:
        LossesDifferError: a step's losses are further apart than `work.loss_bound`.
    """
    difference = loss_difference(results)
    bound = work.loss_bound.of(setting.precision)
    if not difference <= bound:  # also where one of them is no number
        raise LossesDifferError(
            f"{work.key}: losses differ by {difference:.1e} of ours, allowed are {bound:g}"
        )
    costs = {result.job.system: _costs(result, work.span) for result in results}
    precision = setting.precision
    return BenchRow(
        key=work.key,
        title=work.title,
        setting=setting,
        ratios={
            system: _ratio(own, costs["ours"]) for system, own in costs.items() if system != "ours"
        },
        cpu_s={system: statistics.median(own) for system, own in costs.items()},
        above_model_bytes={result.job.system: _above_model(result) for result in results},
        loss_difference=difference,
        loss_bound=bound,
        matrix_share=_matrix_share(next(own for own in results if own.job.system == "ours")),
        wall_s=wall_s,
        goal=work.goal and work.goal.of(precision),
        limit=work.limit and work.limit.of(precision),
        floor=work.floor and work.floor.of(precision),
    )


def loss_difference(results: Sequence[SystemResult]) -> float:
    """Return the largest relative difference of any system's loss in any step from ours.

    Raises:
        ValueError: the systems took different steps.
    """
    ours = next(result.steps for result in results if result.job.system == "ours")
    differences = [
        abs(own.loss - reference.loss) / abs(reference.loss)
        for result in results
        for own, reference in zip(result.steps, ours, strict=True)
    ]
    return max(differences, key=lambda value: float("inf") if value != value else value)


def _of_phase(result: SystemResult, phase: Phase) -> list[MeasuredStep]:
    return [step for step in result.steps if step.phase == phase]


def _costs(result: SystemResult, span: Span) -> list[float]:
    """Return processor seconds, one a round."""
    first = [step.cpu_s for step in _of_phase(result, "first")]
    if span == "first":
        return first
    later = [step.cpu_s for step in _of_phase(result, "second")]
    return [one + 2 * again for one, again in zip(first, later, strict=True)]


def _ratio(own: Sequence[float], ours: Sequence[float]) -> Ratio:
    ratios = [cost / reference for cost, reference in zip(own, ours, strict=True)]
    return Ratio(median=statistics.median(ratios), least=min(ratios), most=max(ratios))


def _above_model(result: SystemResult) -> int:
    counted = [step for step in result.steps if step.phase in ("first", "second")]
    most = max(step.peak_rss_bytes for step in counted)
    return most - result.base_rss_bytes - result.state_bytes


def _matrix_share(ours: SystemResult) -> float | None:
    if not ours.step_flops or not ours.flops_per_cpu_s:
        return None
    rates = [
        flops / step.cpu_s
        for flops, step in zip(ours.step_flops, ours.steps, strict=False)  # read ahead: one more
        if step.phase == "first"
    ]
    return statistics.median(rates) / ours.flops_per_cpu_s


def as_json(row: BenchRow) -> dict[str, Any]:
    """Return a row as `from_json` reads it."""
    return asdict(row)


def from_json(content: Mapping[str, Any]) -> BenchRow:
    """Return a row that `as_json` wrote.

    Raises:
        TypeError: it is of another version, with other fields.
    """
    values = dict(content)
    setting = dict(values.pop("setting"))
    setting["layers"] = tuple(setting["layers"])
    ratios = {system: Ratio(**ratio) for system, ratio in values.pop("ratios").items()}
    return BenchRow(setting=Setting(**setting), ratios=ratios, **values)
