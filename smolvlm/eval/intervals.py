"""95 % intervals of scores: Wilson's of right and wrong answers, the bootstrap's of all else.

In: what a score adds up over its rows. Out: the interval's ends. The bootstrap draws rows with
replacement (Efron 1979) and takes percentiles of the scores; it is seeded, so the same answers have
the same interval. A score that is no mean over rows (BLEU, loss by token) is computed anew of each
draw, from its rows' sums. Two models are compared on the same draws.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from jaxtyping import Float64

NORMAL_QUANTILE_95 = 1.959963984540054
NUM_DRAWS = 1000
SEED = 0
_MAX_CELLS = 4_000_000
"""Of a table of draws by rows that is in memory at once."""

Statistics = Float64[np.ndarray, "row count"]
"""What a score adds up, a row each."""
Method = Literal["wilson", "bootstrap"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """Where a score would be in 95 of 100 samples of as many rows."""

    low: float
    high: float
    method: Method


@dataclass(frozen=True, kw_only=True, slots=True)
class Summed:
    """A score as a function of sums over rows."""

    statistics: Statistics
    value: Callable[[Float64[np.ndarray, "draw count"]], Float64[np.ndarray, " draw"]]
    """Sums, a draw each, to scores."""


def ratio(sums: Float64[np.ndarray, "draw two"]) -> Float64[np.ndarray, " draw"]:
    """Return the first sum over the second: a mean over rows, or over tokens."""
    return sums[:, 0] / np.maximum(sums[:, 1], 1)


def mean_of(scores: Sequence[float]) -> Summed:
    """Return a plain mean over rows."""
    return Summed(statistics=np.column_stack([scores, np.ones(len(scores))]), value=ratio)


def wilson_interval(share: float, num_rows: int) -> tuple[float, float]:
    """Return the 95 % interval of a share observed on `num_rows` rows (Wilson 1927), within [0, 1].

    With partly right answers the observed mean stands in for the share, which makes the interval a
    little too wide.

    Raises:
        ValueError: no rows, or a share outside [0, 1].
    """
    if num_rows < 1 or not 0 <= share <= 1:
        raise ValueError(f"a share of {share} of {num_rows} rows")
    squared = NORMAL_QUANTILE_95**2 / num_rows
    centre = (share + squared / 2) / (1 + squared)
    half = sqrt(squared * share * (1 - share) + squared**2 / 4) / (1 + squared)
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def bootstrap_intervals(scores: Sequence[Summed], *, seed: int = SEED) -> list[Interval]:
    """Return the interval of each score; all are of the same rows, and see the same draws.

    Args:
        scores: of at least one row.
        seed: of the draws.
    """
    return [_interval(draws) for draws in _drawn(scores, seed=seed)]


def difference_intervals(
    scores: Sequence[Summed], others: Sequence[Summed], *, seed: int = SEED
) -> list[Interval]:
    """Return the interval of each score less another one on the same rows, drawn together.

    Args:
        scores: of at least one row.
        others: in the same order, of the same rows in the same order.
        seed: of the draws.
    """
    drawn = _drawn([*scores, *others], seed=seed)
    return [
        _interval(one - other)
        for one, other in zip(drawn[: len(scores)], drawn[len(scores) :], strict=True)
    ]


def _interval(draws: Float64[np.ndarray, " draw"]) -> Interval:
    low, high = np.percentile(draws, [2.5, 97.5])
    return Interval(low=float(low), high=float(high), method="bootstrap")


def _drawn(scores: Sequence[Summed], *, seed: int) -> list[Float64[np.ndarray, " draw"]]:
    """Return each score of each draw."""
    if not scores:
        return []
    columns = np.hstack([score.statistics for score in scores])
    sums = np.vstack([counts @ columns for counts in _counts(len(columns), seed=seed)])
    ends = np.cumsum([score.statistics.shape[1] for score in scores])[:-1]
    parts = np.split(sums, ends, axis=1)
    return [score.value(part) for score, part in zip(scores, parts, strict=True)]


def _counts(num_rows: int, *, seed: int) -> Iterator[Float64[np.ndarray, "draw row"]]:
    """Yield how often each row stands in each draw, some draws at a time."""
    random = np.random.default_rng(seed)
    at_once = max(1, min(NUM_DRAWS, _MAX_CELLS // num_rows))
    for start in range(0, NUM_DRAWS, at_once):
        drawn = random.integers(0, num_rows, (min(at_once, NUM_DRAWS - start), num_rows))
        yield np.array([np.bincount(rows, minlength=num_rows) for rows in drawn], np.float64)
