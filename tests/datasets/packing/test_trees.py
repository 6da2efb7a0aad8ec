"""Trees alone: which rows share one, where it ends, and how large it is."""

import numpy as np
import pytest

from smolvlm.datasets.packing.lengths import Budget, LengthTable
from smolvlm.datasets.packing.trees import gather_trees


def questions(num_rows: int, *, group: list[int]) -> LengthTable:
    """Rows of 12 tokens and 2 tiles, 10 and 1 of them in a beginning that rows of a group share."""
    return LengthTable(
        num_tokens=np.full(num_rows, 12, np.int32),
        num_tiles=np.full(num_rows, 2, np.int32),
        num_supervised_tokens=np.ones(num_rows, np.int32),
        prefix_tokens=np.full(num_rows, 10, np.int32),
        prefix_tiles=np.full(num_rows, 1, np.int32),
        prefix_group=np.array(group, np.int32),
        repeats=np.ones(num_rows, np.float32),
    )


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        ((60, 12, 4), [(5,), (0, 2, 3, 4), (1,)]),
        ((60, 12, 1), [(0,), (1,), (2,), (3,), (4,), (5,)]),  # every row alone
        ((16, 12, 4), [(5,), (0, 2, 3), (4,), (1,)]),  # tokens bind
        ((60, 3, 4), [(5,), (0, 2), (3, 4), (1,)]),  # tiles bind
    ],
)
def test_rows_that_begin_alike_share_trees_within_the_budget(
    limits: tuple[int, int, int], wanted: list[tuple[int, ...]]
) -> None:
    max_tokens, max_tiles, max_branches = limits
    samples = gather_trees(
        np.arange(6),
        questions(6, group=[0, 1, 0, 0, 0, -1]),
        budget=Budget(max_tokens=max_tokens, max_tiles=max_tiles),
        max_branches=max_branches,
    )
    bounds = zip(samples.starts[:-1], samples.starts[1:], strict=True)
    assert [tuple(samples.rows[begin:end].tolist()) for begin, end in bounds] == wanted
    assert samples.num_tokens.tolist() == [10 + 2 * len(rows) for rows in wanted]
    assert samples.num_tiles.tolist() == [1 + len(rows) for rows in wanted]


def test_trees_follow_the_order_that_rows_come_in() -> None:
    samples = gather_trees(
        np.array([3, 1, 2]),
        questions(4, group=[0, 0, 0, 0]),
        budget=Budget(max_tokens=14, max_tiles=9),
        max_branches=8,
    )
    assert samples.rows.tolist() == [3, 1, 2]
    assert samples.starts.tolist() == [0, 2, 3]
