"""Intervals: those of tables and of scipy, and laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from smolvlm.eval import intervals
from smolvlm.eval.intervals import (
    NUM_DRAWS,
    SEED,
    Summed,
    bootstrap_intervals,
    difference_intervals,
    mean_of,
    ratio,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("right", "num_rows", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (81, 263, 0.2553, 0.3662),
        (1, 1, 0.2065, 1),
    ],
)
def test_wilson_intervals_are_those_of_the_tables(
    right: int, num_rows: int, low: float, high: float
) -> None:
    assert wilson_interval(right / num_rows, num_rows) == pytest.approx((low, high), abs=5e-5)


@given(share=st.floats(0, 1), num_rows=st.integers(1, 10**7))
def test_the_interval_holds_the_share_within_0_and_1(share: float, num_rows: int) -> None:
    low, high = wilson_interval(share, num_rows)
    assert 0 <= low <= share <= high <= 1


@pytest.mark.parametrize(("share", "num_rows"), [(0.5, 0), (1.01, 3), (-0.1, 3)])
def test_what_is_no_share_is_refused(share: float, num_rows: int) -> None:
    with pytest.raises(ValueError, match="a share of"):
        wilson_interval(share, num_rows)


@pytest.mark.parametrize(("right", "num_rows"), [(0, 7), (7, 7), (3, 11), (512, 1000), (99, 100)])
def test_wilson_intervals_are_scipys(right: int, num_rows: int) -> None:
    theirs = binomtest(right, num_rows).proportion_ci(method="wilson")
    assert wilson_interval(right / num_rows, num_rows) == pytest.approx((theirs.low, theirs.high))


def scores(num_rows: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).beta(0.4, 0.3, num_rows).round(3)


@pytest.mark.parametrize("num_rows", [2, 37, 400])
def test_the_bootstrap_is_scipys_on_the_same_draws(num_rows: int) -> None:
    values = scores(num_rows, seed=1)
    (ours,) = bootstrap_intervals([mean_of(list(values))])
    theirs = bootstrap(
        (values,), np.mean, n_resamples=NUM_DRAWS, method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours.low < ours.high <= 1
    assert ours.method == "bootstrap"


def test_a_ratio_of_sums_is_drawn_by_rows_as_in_scipy() -> None:
    losses, tokens = scores(50, seed=2) * 9, np.arange(1, 51) % 7 + 1
    (ours,) = bootstrap_intervals(
        [Summed(statistics=np.column_stack([losses, tokens]), value=ratio)]
    )
    theirs = bootstrap(
        (losses, tokens), lambda loss, count, axis: loss.sum(axis) / count.sum(axis), paired=True,
        n_resamples=NUM_DRAWS, method="percentile", rng=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_a_difference_is_drawn_on_the_same_rows_as_in_scipy() -> None:
    one, other = scores(80, seed=3), scores(80, seed=3) * 0.8
    (ours,) = difference_intervals([mean_of(list(one))], [mean_of(list(other))])
    theirs = bootstrap(
        (one, other), lambda a, b, axis: a.mean(axis) - b.mean(axis), paired=True,
        n_resamples=NUM_DRAWS, method="percentile", rng=np.random.default_rng(SEED),
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    (alone,) = bootstrap_intervals([mean_of(list(one))])
    assert ours.high - ours.low < alone.high - alone.low, "what both share does not count"


def test_draws_do_not_depend_on_how_many_are_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    several = [mean_of(list(scores(30, seed=seed))) for seed in (4, 5)]
    at_once = bootstrap_intervals(several)
    monkeypatch.setattr(intervals, "_MAX_CELLS", 30 * 7)
    in_parts = bootstrap_intervals(several)
    for one, other in zip(at_once, in_parts, strict=True):
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-12)
    assert bootstrap_intervals(several[:1]) == pytest.approx(at_once[:1])
    assert bootstrap_intervals([]) == []


def test_another_seed_draws_otherwise() -> None:
    score = mean_of(list(scores(30, seed=6)))
    assert bootstrap_intervals([score], seed=1) != bootstrap_intervals([score], seed=2)
