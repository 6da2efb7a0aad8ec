"""Sampling: how many rows, which ones, and the strategies that are refused."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.rows.sources import Sampling, parse_sampling
from smolvlm.errors import ConfigError

COUNTS = st.integers(0, 5000)
PERCENTS = st.decimals(min_value="0.01", max_value=100, places=2)


@pytest.mark.parametrize(
    ("strategy", "rows"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("first:2", [0, 1]),
        ("end:2", [3, 4]),
        ("last:2", [3, 4]),
        ("first:99", [0, 1, 2, 3, 4]),
        ("first:40%", [0, 1]),
        ("first:41%", [0, 1, 2]),
        ("end:0.5%", [4]),
        ("last:100%", [0, 1, 2, 3, 4]),
        (" First:1 ", [0]),
    ],
)
def test_which_rows_of_five(strategy: str, rows: list[int]) -> None:
    assert list(parse_sampling(strategy).rows(5, seed=0)) == rows


@settings(deadline=None)
@given(
    num_rows=COUNTS,
    percent=PERCENTS,
    kind=st.sampled_from(["first", "end", "last", "random"]),
    seed=COUNTS,
)
def test_percentages_round_up_exactly_and_keep_at_least_one_row(
    num_rows, percent, kind, seed
) -> None:
    rows = list(parse_sampling(f"{kind}:{percent}%").rows(num_rows, seed=seed))
    assert len(rows) == min(num_rows, max(1, math.ceil(num_rows * Fraction(percent) / 100)))


@settings(deadline=None)
@given(
    num_rows=COUNTS,
    amount=st.integers(1, 6000),
    kind=st.sampled_from(["first", "end", "random"]),
    seed=COUNTS,
)
def test_rows_are_distinct_ascending_and_in_the_file(num_rows, amount, kind, seed) -> None:
    rows = list(parse_sampling(f"{kind}:{amount}").rows(num_rows, seed=seed))
    assert len(rows) == min(num_rows, amount)
    assert rows == sorted(set(rows))
    assert all(0 <= row < num_rows for row in rows)


def test_random_rows_follow_the_seed_alone() -> None:
    sampling = parse_sampling("random:10")
    assert list(sampling.rows(1000, seed=3)) == list(sampling.rows(1000, seed=3))
    assert list(sampling.rows(1000, seed=3)) != list(sampling.rows(1000, seed=4))


def test_seven_percent_of_a_hundred_is_seven() -> None:
    assert Sampling(kind="first", amount=Fraction("7"), is_percent=True).count(100) == 7
    assert parse_sampling("first:0.1%").count(1000) == 1


@pytest.mark.parametrize(
    "strategy", ["frist:10", "first", "first:-1", "first:ten", "random:5 %x", "", "all:3", "10%"]
)
def test_an_unknown_strategy_is_refused(strategy: str) -> None:
    with pytest.raises(
        ConfigError, match=r"unknown sampling strategy .*\n  fix: write `all`, `first:N`"
    ):
        parse_sampling(strategy)


@pytest.mark.parametrize("strategy", ["first:0", "random:2.5"])
def test_a_count_is_a_whole_number_above_zero(strategy: str) -> None:
    with pytest.raises(ConfigError, match="no whole number of rows above 0"):
        parse_sampling(strategy)


@pytest.mark.parametrize("strategy", ["first:0%", "random:100.5%"])
def test_a_percentage_is_above_zero_and_up_to_a_hundred(strategy: str) -> None:
    with pytest.raises(ConfigError, match=r"above 0 and up to 100\n  fix: use `repeat`"):
        parse_sampling(strategy)
