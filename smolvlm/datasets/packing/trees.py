"""Which rows become one sample: rows that begin with the same pictures are gathered into trees.

In: rows in the order of an epoch, and their sizes. Out: samples as columns; a tree's common
beginning counts once in its size, and no tree is above the budget. Rows of no group stay alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Int32, Int64

from smolvlm.datasets.packing.columns import SampleTable, run_windows, taken
from smolvlm.datasets.packing.lengths import Budget, LengthTable


@dataclass(frozen=True, kw_only=True, slots=True)
class _Branches:
    """Rows of groups, sorted by group: what each adds to the beginning that its group shares."""

    group: Int32[np.ndarray, " row"]
    num_tokens: Int32[np.ndarray, " row"]
    """Without the common beginning."""
    num_tiles: Int32[np.ndarray, " row"]
    """Without the common beginning."""
    prefix_tokens: Int32[np.ndarray, " row"]
    """Of the common beginning."""
    prefix_tiles: Int32[np.ndarray, " row"]
    """Of the common beginning."""

    def __len__(self) -> int:
        return len(self.group)


def gather_trees(
    order: Int[np.ndarray, " row"], lengths: LengthTable, *, budget: Budget, max_branches: int
) -> SampleTable:
    """Gather rows of one group into trees, in the order in which they come; others stay alone.

    Args:
        order: row numbers.
        lengths: of all rows; `prefix_group` says which begin alike.
        budget: what a tree may hold.
        max_branches: rows of a tree at most; 1 keeps every row alone.
    """
    order = order.astype(np.int32, copy=False)
    if max_branches == 1 or not len(order) or not (lengths.prefix_group >= 0).any():
        return _alone(order, lengths)
    alone, shared, group_starts = _by_group(order, lengths.prefix_group)
    parts = [_alone(alone, lengths)]
    for window in run_windows(group_starts):  # groups do not touch each other
        rows = shared[group_starts[window.start] : group_starts[window.stop]]
        branches = _branches(rows, lengths)
        first = _tree_starts(branches, budget=budget, max_branches=max_branches)
        parts.append(
            SampleTable(
                rows=rows,
                starts=np.append(first, len(rows)).astype(np.int32),
                num_tokens=np.add.reduceat(branches.num_tokens, first, dtype=np.int32)
                + branches.prefix_tokens[first],
                num_tiles=np.add.reduceat(branches.num_tiles, first, dtype=np.int32)
                + branches.prefix_tiles[first],
            )
        )
    return SampleTable.joined(parts)


def _alone(rows: Int32[np.ndarray, " row"], lengths: LengthTable) -> SampleTable:
    """Return each of these rows as a sample."""
    return SampleTable(
        rows=rows,
        starts=np.arange(len(rows) + 1, dtype=np.int32),
        num_tokens=taken(lengths.num_tokens, rows),
        num_tiles=taken(lengths.num_tiles, rows),
    )


def _branches(rows: Int32[np.ndarray, " row"], lengths: LengthTable) -> _Branches:
    prefix_tokens, prefix_tiles = lengths.prefix_tokens[rows], lengths.prefix_tiles[rows]
    return _Branches(
        group=lengths.prefix_group[rows],
        num_tokens=lengths.num_tokens[rows] - prefix_tokens,
        num_tiles=lengths.num_tiles[rows] - prefix_tiles,
        prefix_tokens=prefix_tokens,
        prefix_tiles=prefix_tiles,
    )


def _by_group(
    order: Int32[np.ndarray, " row"], group: Int32[np.ndarray, " all"]
) -> tuple[Int32[np.ndarray, " alone"], Int32[np.ndarray, " shared"], Int32[np.ndarray, " bound"]]:
    """Return the rows of no group, the others sorted by group, and where groups begin in these."""
    group = taken(group, order)
    is_alone = group < 0
    alone, shared, group = order[is_alone], order[~is_alone], group[~is_alone]
    sorting = np.argsort(group, kind="stable")
    shared, group = taken(shared, sorting), taken(group, sorting)
    del sorting
    changes = 1 + np.flatnonzero(group[1:] != group[:-1])
    starts = [0, *changes, len(shared)] if len(shared) else [0]
    return alone, shared, np.array(starts, np.int32)


def _tree_starts(
    branches: _Branches, *, budget: Budget, max_branches: int
) -> Int64[np.ndarray, " tree"]:
    """Return where trees begin.

    Each group is cut every `max_branches` rows; only where such a piece is above the budget, its
    group is walked row by row.
    """
    group = branches.group
    if not len(group):
        return np.zeros(0, np.int64)
    group_starts = np.concatenate([[0], 1 + np.flatnonzero(np.diff(group))])
    place = np.arange(len(group)) - np.repeat(group_starts, np.diff([*group_starts, len(group)]))
    starts = np.flatnonzero(place % max_branches == 0)
    num_tokens = np.add.reduceat(branches.num_tokens, starts) + branches.prefix_tokens[starts]
    num_tiles = np.add.reduceat(branches.num_tiles, starts) + branches.prefix_tiles[starts]
    above = (num_tokens > budget.max_tokens) | (num_tiles > budget.max_tiles)
    if not above.any():
        return starts
    too_large = np.unique(group[starts[above]])
    walked: list[np.ndarray] = [starts[~np.isin(group[starts], too_large)]]
    ends = np.append(group_starts[1:], len(group))
    for number in np.flatnonzero(np.isin(group[group_starts], too_large)):
        begin, end = int(group_starts[number]), int(ends[number])
        room = Budget(
            max_tokens=budget.max_tokens - int(branches.prefix_tokens[begin]),
            max_tiles=budget.max_tiles - int(branches.prefix_tiles[begin]),
        )
        sizes = zip(
            branches.num_tokens[begin:end].tolist(),
            branches.num_tiles[begin:end].tolist(),
            strict=True,
        )
        walked.append(begin + _walk(sizes, room=room, max_branches=max_branches))
    return np.sort(np.concatenate(walked))


def _walk(
    sizes: Iterable[tuple[int, int]], *, room: Budget, max_branches: int
) -> Int64[np.ndarray, " tree"]:
    """Return where trees begin in one group: each takes the next rows as long as they fit.

    Args:
        sizes: (tokens, tiles) of each row's branch.
        room: what the common beginning leaves of the budget.
        max_branches: rows of a tree at most.
    """
    starts: list[int] = []
    num_tokens = num_tiles = num_branches = 0
    for place, (tokens, tiles) in enumerate(sizes):
        num_tokens, num_tiles, num_branches = (
            num_tokens + tokens,
            num_tiles + tiles,
            num_branches + 1,
        )
        is_above = num_tokens > room.max_tokens or num_tiles > room.max_tiles
        if not starts or is_above or num_branches > max_branches:
            starts.append(place)
            num_tokens, num_tiles, num_branches = tokens, tiles, 1
    return np.array(starts, np.int64)
