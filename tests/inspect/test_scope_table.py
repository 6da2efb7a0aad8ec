"""The drawn table is the rule."""

import re

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.tree import scope_ends, visible
from smolvlm.inspect.scope_table import MAX_TOKENS, scope_svg


@given(trunk=st.integers(0, 9), branches=st.lists(st.integers(1, 6), min_size=2, max_size=5))
@settings(deadline=None)
def test_the_bars_cover_exactly_what_is_visible(trunk: int, branches: list[int]) -> None:
    ends = scope_ends(branches, trunk_length=trunk)
    svg = scope_svg(ends, trunk_length=trunk)
    assert svg is not None
    drawn = np.zeros((len(ends), len(ends)), int)
    for left, top, width, height, back in re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)H(\d+)z", svg):
        assert left == back
        drawn[int(top) : int(top) + int(height), int(left) : int(left) + int(width)] += 1
    assert np.array_equal(drawn, visible(ends).astype(int))


def test_a_plain_conversation_and_a_large_one_are_not_drawn() -> None:
    assert scope_svg(scope_ends([7], trunk_length=0), trunk_length=0) is None
    assert scope_svg(scope_ends([MAX_TOKENS, 1], trunk_length=0), trunk_length=0) is None
