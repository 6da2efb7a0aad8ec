"""Scopes as numbers: the docstring's example, the rule written out, the errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.tree import scope_ends, visible

lengths = st.lists(st.integers(0, 4), min_size=1, max_size=4)


def test_a_trunk_of_three_with_branches_of_two_and_one() -> None:
    ends = scope_ends([2, 1], trunk_length=3)
    assert ends.tolist() == [6, 6, 6, 5, 5, 6]
    assert ends.dtype == np.int32


def test_a_plain_conversation_is_seen_to_its_end() -> None:
    assert scope_ends([4], trunk_length=0).tolist() == [4, 4, 4, 4]
    assert np.array_equal(visible(scope_ends([4], trunk_length=0)), np.tri(4, dtype=bool))


def test_a_trunk_without_branches_is_plain() -> None:
    assert scope_ends([], trunk_length=2).tolist() == [2, 2]


def test_a_small_tree_as_a_table() -> None:
    drawn = [
        "".join("x" if seen else "." for seen in row)
        for row in visible(scope_ends([2, 1], trunk_length=1))
    ]
    assert drawn == ["x...", "xx..", "xxx.", "x..x"]


@settings(deadline=None, max_examples=50)
@given(branches=lengths, trunk=st.integers(0, 6))
def test_a_token_sees_its_own_branch_and_the_trunk_up_to_itself(
    branches: list[int], trunk: int
) -> None:
    owner = np.concatenate([np.full(trunk, -1), np.repeat(np.arange(len(branches)), branches)])
    if not len(owner):
        return
    seen = visible(scope_ends(branches, trunk_length=trunk))
    for query in range(len(owner)):
        for key in range(len(owner)):
            assert seen[query, key] == (key <= query and owner[key] in (-1, owner[query]))


@pytest.mark.parametrize(("branches", "trunk"), [([1, -1], 2), ([1], -1)])
def test_negative_lengths_are_refused(branches: list[int], trunk: int) -> None:
    with pytest.raises(ValueError, match=rf"must not be negative: trunk {trunk}, branches \[1"):
        scope_ends(branches, trunk_length=trunk)


@pytest.mark.parametrize("branches", [[], [0], [0, 0]])
def test_nothing_at_all_is_refused(branches: list[int]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        scope_ends(branches, trunk_length=0)
