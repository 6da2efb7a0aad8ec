"""A model beside the one that it was trained from, on the same rows.

In: two evaluations. Out: each metric of both with their difference, and its interval on draws of
rows that both answered: what makes some rows harder for either does not widen it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from smolvlm.config.eval_metrics import is_greater_better
from smolvlm.eval.evaluate import ALL_SOURCES, Evaluation
from smolvlm.eval.intervals import Interval, Summed, difference_intervals
from smolvlm.eval.prediction import Prediction
from smolvlm.eval.scoring import summed_scores, summed_tokens, value_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One metric of two models."""

    name: str
    source: str
    num_rows: int
    """That both answered."""
    base: float
    value: float
    interval: Interval
    """Of `difference`, 95 %, by the paired bootstrap."""

    @property
    def difference(self) -> float:
        return self.value - self.base

    @property
    def is_worse(self) -> bool:
        """Whether the whole interval lies on the bad side of no difference."""
        if is_greater_better(self.name):
            return self.interval.high < 0
        return self.interval.low > 0


def differences(model: Evaluation, base: Evaluation) -> list[Difference]:
    """Return the difference of every metric that both have, in the model's order.

    Rows that only one of them could answer are left out of both.
    """
    mine = {(row.where, row.source): row for row in model.predictions}
    theirs = {(row.where, row.source): row for row in base.predictions}
    shared = [key for key in mine if key in theirs]
    pairs = list(zip([mine[key] for key in shared], [theirs[key] for key in shared], strict=True))
    found: list[Difference] = []
    for source in dict.fromkeys(metric.source for metric in model.metrics):
        chosen = [pair for pair in pairs if source in (ALL_SOURCES, pair[0].source)]
        if chosen:
            found += _of_source(chosen, source=source)
    return found


def _of_source(pairs: Sequence[tuple[Prediction, Prediction]], *, source: str) -> list[Difference]:
    rows, base_rows = ([pair[side] for pair in pairs] for side in (0, 1))
    names = [
        name for name in rows[0].scores if all(name in row.scores for row in (*rows, *base_rows))
    ]
    found = _differences(
        {name: summed_scores(name, rows) for name in names},
        {name: summed_scores(name, base_rows) for name in names},
        source=source,
    )
    tokens = [
        (one.tokens, other.tokens)
        for one, other in pairs
        if one.tokens is not None and other.tokens is not None
    ]
    if tokens:
        ours, others = (summed_tokens([pair[side] for pair in tokens]) for side in (0, 1))
        found += _differences(ours, others, source=source)
    return found


def _differences(
    scores: dict[str, Summed], others: dict[str, Summed], *, source: str
) -> list[Difference]:
    intervals = difference_intervals(list(scores.values()), list(others.values()))
    return [
        Difference(
            name=name,
            source=source,
            num_rows=len(scores[name].statistics),
            base=value_of(others[name]),
            value=value_of(scores[name]),
            interval=interval,
        )
        for name, interval in zip(scores, intervals, strict=True)
    ]
