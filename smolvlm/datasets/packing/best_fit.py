"""Which samples share a pack: trees gathered, then laid by best fit under two budgets. Arrays in,
arrays out.

A million rows are laid in seconds on one core. Open packs stand on shelves by the room they have
left; a shelf's big integer has a bit for each room that some pack has, so "the fullest pack that
still holds this" is a shift and a count of zeros, whatever the number of open packs.
"""

import numpy as np
from jaxtyping import Int, Int32, Int64

from smolvlm.datasets.packing.columns import SampleTable, run_windows, taken

WINDOW_SAMPLES = 8192
"""Samples laid together, the large ones first: more fills packs better and mixes less."""
LARGE_SHARE = 1 / 8
"""Of a pack: larger samples are laid largest first, smaller ones as they come, so that a pack mixes
sizes."""
MAX_OPEN_PACKS = 1024
"""Packs that wait for more samples at a time; the fullest is closed to open another."""
MAX_LOOKS = 32
"""Open packs that are asked whether a sample's tiles fit, on the shelf where some may hold them and
some not."""


def gather_trees(
    order: Int[np.ndarray, " row"],
    *,
    tokens: Int32[np.ndarray, " row"],
    tiles: Int32[np.ndarray, " row"],
    prefix_tokens: Int32[np.ndarray, " row"],
    prefix_tiles: Int32[np.ndarray, " row"],
    group: Int32[np.ndarray, " row"],
    max_tokens: int,
    max_tiles: int,
    max_branches: int,
) -> SampleTable:
    """Group rows of one group into trees, in the order in which they come; `group` -1 stays alone.

    Args:
        order: row numbers; the other columns are by row number.
        max_tokens, max_tiles: what a tree may hold.
        max_branches: rows of a tree at most; 1 keeps every row alone.
    """
    order = order.astype(np.int32, copy=False)
    if max_branches == 1 or not len(order) or not (group >= 0).any():
        return _alone(order, tokens, tiles)
    alone, shared, group_starts = _by_group(order, group)
    parts = [_alone(alone, tokens, tiles)]
    for window in run_windows(group_starts):  # groups do not touch each other
        rows = shared[group_starts[window.start] : group_starts[window.stop]]
        own_tokens, own_tiles, own_prefix_tokens, own_prefix_tiles = (
            column[rows] for column in (tokens, tiles, prefix_tokens, prefix_tiles)
        )
        first = _tree_starts(
            group[rows],
            own_tokens - own_prefix_tokens,
            own_tiles - own_prefix_tiles,
            own_prefix_tokens,
            own_prefix_tiles,
            max_tokens=max_tokens,
            max_tiles=max_tiles,
            max_branches=max_branches,
        )
        starts = np.append(first, len(rows)).astype(np.int32)
        once = np.diff(starts) - 1
        parts.append(
            SampleTable(
                rows=rows,
                starts=starts,
                num_tokens=np.add.reduceat(own_tokens, first, dtype=np.int32)
                - once * own_prefix_tokens[first],
                num_tiles=np.add.reduceat(own_tiles, first, dtype=np.int32)
                - once * own_prefix_tiles[first],
            )
        )
    return SampleTable.joined(parts)


def _alone(
    rows: Int32[np.ndarray, " row"],
    tokens: Int32[np.ndarray, " all"],
    tiles: Int32[np.ndarray, " all"],
) -> SampleTable:
    """Return each of these rows as a sample."""
    return SampleTable(
        rows=rows,
        starts=np.arange(len(rows) + 1, dtype=np.int32),
        num_tokens=taken(tokens, rows),
        num_tiles=taken(tiles, rows),
    )


def _by_group(
    order: Int32[np.ndarray, " row"], group: Int32[np.ndarray, " all"]
) -> tuple[Int32[np.ndarray, " alone"], Int32[np.ndarray, " shared"], Int32[np.ndarray, " bound"]]:
    """Return the rows of no group, those of groups sorted by group, and where groups begin among
    these."""
    own_group = taken(group, order)
    is_alone = own_group < 0
    alone, shared, own_group = order[is_alone], order[~is_alone], own_group[~is_alone]
    sorting = np.argsort(own_group, kind="stable")
    shared, own_group = taken(shared, sorting), taken(own_group, sorting)
    del sorting
    changes = 1 + np.flatnonzero(own_group[1:] != own_group[:-1])
    starts = [0, *changes, len(shared)] if len(shared) else [0]
    return alone, shared, np.array(starts, np.int32)


def _tree_starts(
    group: Int32[np.ndarray, " row"],
    own_tokens: Int32[np.ndarray, " row"],
    own_tiles: Int32[np.ndarray, " row"],
    prefix_tokens: Int32[np.ndarray, " row"],
    prefix_tiles: Int32[np.ndarray, " row"],
    *,
    max_tokens: int,
    max_tiles: int,
    max_branches: int,
) -> Int64[np.ndarray, " tree"]:
    """Return where trees begin in rows sorted by group.

    Each group is cut every `max_branches` rows; only where such a piece is above a budget its group
    is walked row by row.
    """
    if not len(group):
        return np.zeros(0, np.int64)
    group_starts = np.concatenate([[0], 1 + np.flatnonzero(np.diff(group))])
    place = np.arange(len(group)) - np.repeat(group_starts, np.diff([*group_starts, len(group)]))
    starts = np.flatnonzero(place % max_branches == 0)
    sizes_tokens = np.add.reduceat(own_tokens, starts) + prefix_tokens[starts]
    sizes_tiles = np.add.reduceat(own_tiles, starts) + prefix_tiles[starts]
    above = (sizes_tokens > max_tokens) | (sizes_tiles > max_tiles)
    if not above.any():
        return starts
    walked: list[np.ndarray] = [starts[~np.isin(group[starts], np.unique(group[starts[above]]))]]
    ends = np.append(group_starts[1:], len(group))
    for number in np.flatnonzero(np.isin(group[group_starts], np.unique(group[starts[above]]))):
        begin, end = int(group_starts[number]), int(ends[number])
        walked.append(
            begin
            + _walk(
                own_tokens[begin:end].tolist(),
                own_tiles[begin:end].tolist(),
                room=(max_tokens - int(prefix_tokens[begin]), max_tiles - int(prefix_tiles[begin])),
                max_branches=max_branches,
            )
        )
    return np.sort(np.concatenate(walked))


def _walk(
    tokens: list[int], tiles: list[int], *, room: tuple[int, int], max_branches: int
) -> Int64[np.ndarray, " tree"]:
    """Return where trees begin in one group: each takes the next rows as long as they fit."""
    starts: list[int] = []
    used_tokens = used_tiles = branches = 0
    for place, (own_tokens, own_tiles) in enumerate(zip(tokens, tiles, strict=True)):
        used_tokens, used_tiles, branches = (
            used_tokens + own_tokens,
            used_tiles + own_tiles,
            branches + 1,
        )
        if not starts or used_tokens > room[0] or used_tiles > room[1] or branches > max_branches:
            starts.append(place)
            used_tokens, used_tiles, branches = own_tokens, own_tiles, 1
    return np.array(starts, np.int64)


class _Shelf:
    """Open packs by the room for tokens that they have left."""

    def __init__(self, max_tokens: int) -> None:
        self.rooms = 0
        """Bit r is set where some pack has room for r tokens."""
        self._packs: list[list[int]] = [[] for _ in range(max_tokens + 1)]

    def put(self, pack: int, room: int) -> None:
        packs = self._packs[room]
        if not packs:
            self.rooms |= 1 << room
        packs.append(pack)

    def tightest(self, tokens: int) -> int:
        """Return the least room of a pack that holds so many tokens, or a number above all
        rooms."""
        rooms = self.rooms >> tokens
        return tokens + (rooms & -rooms).bit_length() - 1 if rooms else len(self._packs)

    def take(self, room: int, place: int = -1) -> int:
        """Remove and return a pack with just so much room."""
        packs = self._packs[room]
        pack = packs.pop(place)
        if not packs:
            self.rooms &= ~(1 << room)
        return pack

    def tightest_with_tiles(
        self, tokens: int, tiles: int, free_tiles: list[int]
    ) -> tuple[int, int]:
        """Return (room, place) of the tightest pack that holds so much, as far as `MAX_LOOKS`
        goes."""
        rooms, room, looks = self.rooms >> tokens, tokens - 1, 0
        while rooms and looks < MAX_LOOKS:
            step = (rooms & -rooms).bit_length()
            room += step
            for place, pack in enumerate(self._packs[room]):
                if free_tiles[pack] >= tiles:
                    return room, place
                looks += 1
            rooms >>= step
        return len(self._packs), -1


class _OpenPacks:
    """Open packs, on shelves by the room for tiles that they have left: none, 1, 2 to 3, 4 to 7,
    ...

    A sample with t tiles fits any pack of the shelves above t's own; on its own shelf some packs
    are asked.
    """

    def __init__(self, *, max_tokens: int, max_tiles: int) -> None:
        self.free_tiles: list[int] = []
        """By pack number."""
        self._full = max_tokens, max_tiles
        self._shelves = [_Shelf(max_tokens) for _ in range(max_tiles.bit_length() + 1)]
        self._num_open = 0

    def lay(self, tokens: int, tiles: int) -> int:
        """Lay a sample into a pack and return its number."""
        taken_pack = self._take(tokens, tiles)
        if taken_pack is None:
            if self._num_open == MAX_OPEN_PACKS:
                self._close_fullest()
            taken_pack = len(self.free_tiles), self._full[0]
            self.free_tiles.append(self._full[1])
            self._num_open += 1
        pack, room = taken_pack
        self.free_tiles[pack] -= tiles
        if room > tokens:
            self._shelves[self.free_tiles[pack].bit_length()].put(pack, room - tokens)
        else:
            self._num_open -= 1
        return pack

    def _take(self, tokens: int, tiles: int) -> tuple[int, int] | None:
        """Remove and return (pack, room) of the pack with the least room for tokens that holds so
        much."""
        level = tiles.bit_length()
        room, place = self._shelves[level].tightest_with_tiles(tokens, tiles, self.free_tiles)
        shelf = self._shelves[level]
        if tiles or place < 0:  # text fills packs that have no room for tiles first
            for other in self._shelves[level + 1 :]:
                if (other_room := other.tightest(tokens)) < room:
                    room, place, shelf = other_room, -1, other
        return (shelf.take(room, place), room) if room <= self._full[0] else None

    def _close_fullest(self) -> None:
        shelf = min(self._shelves, key=lambda shelf: shelf.tightest(0))
        shelf.take(shelf.tightest(0))
        self._num_open -= 1


def best_fit(
    tokens: Int32[np.ndarray, " sample"],
    tiles: Int32[np.ndarray, " sample"],
    *,
    max_tokens: int,
    max_tiles: int,
) -> Int32[np.ndarray, " sample"]:
    """Return the number of each sample's pack.

    In each window the large samples come first, the largest before all, then the small ones as they
    stand; each goes into the open pack with the least room for tokens that still holds it.

    Args:
        tokens, tiles: sizes, each within the budgets; in random order.
        max_tokens, max_tiles: what a pack may hold.
    """
    pack_of = np.empty(len(tokens), np.int32)
    packs = _OpenPacks(max_tokens=max_tokens, max_tiles=max_tiles)
    for start in range(0, len(tokens), WINDOW_SAMPLES):
        window = slice(start, start + WINDOW_SAMPLES)
        shares = np.maximum(tokens[window] / max_tokens, tiles[window] / max_tiles)
        order = start + np.argsort(np.where(shares > LARGE_SHARE, -shares, 0.0), kind="stable")
        sizes = zip(tokens[order].tolist(), tiles[order].tolist(), strict=True)
        pack_of[order] = [packs.lay(*size) for size in sizes]
    return pack_of
