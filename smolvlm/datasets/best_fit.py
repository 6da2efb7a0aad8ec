"""Which samples share a pack: trees gathered, then laid by best fit under two budgets. Arrays in, arrays out.

A million rows are laid in seconds on one core. Open packs stand in a shelf by the room they have left; a big integer
has a bit for each room that some pack has, so "the fullest pack that still holds this" is a shift and a count of zeros,
whatever the number of open packs. Rooms of packs whose tiles are used up are kept apart: only text looks there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int32, Int64

WINDOW_SAMPLES = 8192
"""Samples laid together, the large ones first: more fills packs better and mixes less."""
LARGE_SHARE = 1 / 8
"""Of a pack: larger samples are laid largest first, smaller ones as they come, so that a pack mixes sizes."""
MAX_OPEN_PACKS = 1024
"""Packs that wait for more samples at a time; the fullest is closed to open another."""
MAX_LOOKS = 32
"""Open packs that are asked for room for a sample's tiles before a new one is opened."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleTable:
    """Samples as columns: which rows each is made of, and its size (a tree's shared beginning counts once)."""

    rows: Int32[np.ndarray, " row"]
    """Row numbers, sample after sample."""
    starts: Int64[np.ndarray, " sample+1"]
    """Sample s is `rows[starts[s] : starts[s + 1]]`."""
    num_tokens: Int32[np.ndarray, " sample"]
    num_tiles: Int32[np.ndarray, " sample"]

    def __len__(self) -> int:
        return len(self.num_tokens)

    def reordered(self, order: Int64[np.ndarray, " chosen"]) -> "SampleTable":
        """Return the samples in another order."""
        sizes = np.diff(self.starts)[order]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        return SampleTable(
            rows=self.rows[spread(self.starts[order], sizes)],
            starts=starts,
            num_tokens=self.num_tokens[order],
            num_tiles=self.num_tiles[order],
        )


    @classmethod
    def joined(cls, parts: Iterable["SampleTable"]) -> "SampleTable":
        """Return the samples of all parts, one after the other."""
        own = list(parts)
        empty = np.zeros(0, np.int32)
        return cls(
            rows=np.concatenate([empty, *(part.rows for part in own)]),
            starts=joined_starts([part.starts for part in own]),
            num_tokens=np.concatenate([empty, *(part.num_tokens for part in own)]),
            num_tiles=np.concatenate([empty, *(part.num_tiles for part in own)]),
        )


def joined_starts(parts: Sequence[Int64[np.ndarray, " bound"]]) -> Int64[np.ndarray, " bound"]:
    """Return the bounds of all runs, one part's after the other's."""
    sizes = [np.diff(part) for part in parts]
    return np.concatenate([[0], np.cumsum(np.concatenate([np.zeros(0, np.int64), *sizes]))]).astype(np.int64)


def spread(starts: Int64[np.ndarray, " run"], sizes: Int64[np.ndarray, " run"]) -> Int64[np.ndarray, " place"]:
    """Return the places of all runs one after the other: start, start + 1, ... of each."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)


def gather_trees(
    order: Int64[np.ndarray, " row"],
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
    own_group = group[order]
    alone = order[own_group < 0] if max_branches > 1 else order
    shared = order[own_group >= 0] if max_branches > 1 else order[:0]
    shared = shared[np.argsort(group[shared], kind="stable")]
    first_of_tree = _tree_starts(
        group[shared],
        (tokens - prefix_tokens)[shared],
        (tiles - prefix_tiles)[shared],
        prefix_tokens[shared],
        prefix_tiles[shared],
        max_tokens=max_tokens,
        max_tiles=max_tiles,
        max_branches=max_branches,
    )
    rows = np.concatenate([alone, shared]).astype(np.int32)
    starts = np.concatenate([np.arange(len(alone)), len(alone) + first_of_tree, [len(rows)]]).astype(np.int64)
    if not len(rows):
        empty = np.zeros(0, np.int32)
        return SampleTable(rows=rows, starts=np.zeros(1, np.int64), num_tokens=empty, num_tiles=empty)
    first, branches = rows[starts[:-1]], np.diff(starts)

    def once(whole: Int32[np.ndarray, " row"], prefix: Int32[np.ndarray, " row"]) -> Int32[np.ndarray, " sample"]:
        return (np.add.reduceat(whole[rows], starts[:-1]) - (branches - 1) * prefix[first]).astype(np.int32)

    return SampleTable(
        rows=rows, starts=starts, num_tokens=once(tokens, prefix_tokens), num_tiles=once(tiles, prefix_tiles)
    )


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

    Each group is cut every `max_branches` rows; only where such a piece is above a budget its group is walked row by
    row.
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
        walked.append(begin + _walk(own_tokens[begin:end].tolist(), own_tiles[begin:end].tolist(),
                                    room=(max_tokens - int(prefix_tokens[begin]), max_tiles - int(prefix_tiles[begin])),
                                    max_branches=max_branches))
    return np.sort(np.concatenate(walked))


def _walk(tokens: list[int], tiles: list[int], *, room: tuple[int, int], max_branches: int) -> Int64[np.ndarray, " tree"]:
    """Return where trees begin in one group: each takes the next rows as long as they fit."""
    starts: list[int] = []
    used_tokens = used_tiles = branches = 0
    for place, (own_tokens, own_tiles) in enumerate(zip(tokens, tiles, strict=True)):
        used_tokens, used_tiles, branches = used_tokens + own_tokens, used_tiles + own_tiles, branches + 1
        if not starts or used_tokens > room[0] or used_tiles > room[1] or branches > max_branches:
            starts.append(place)
            used_tokens, used_tiles, branches = own_tokens, own_tiles, 1
    return np.array(starts, np.int64)


class _Shelf:
    """Open packs by the room for tokens they have left."""

    def __init__(self, max_tokens: int) -> None:
        self.rooms = 0
        self._packs: list[list[int]] = [[] for _ in range(max_tokens + 1)]

    def put(self, pack: int, room: int) -> None:
        packs = self._packs[room]
        if not packs:
            self.rooms |= 1 << room
        packs.append(pack)

    def take(self, tokens: int, tiles: int, free_tiles: list[int]) -> tuple[int, int] | None:
        """Remove and return (pack, room) of the fullest pack that holds so much, or None."""
        rooms, room, looks = self.rooms >> tokens, tokens - 1, 0
        while rooms:
            step = (rooms & -rooms).bit_length()
            room += step
            packs = self._packs[room]
            for place in range(len(packs) - 1, -1, -1):
                if free_tiles[packs[place]] >= tiles:
                    pack = packs.pop(place)
                    if not packs:
                        self.rooms &= ~(1 << room)
                    return pack, room
                looks += 1
                if looks == MAX_LOOKS:
                    return None
            rooms >>= step
        return None

    def close_fullest(self) -> bool:
        """Forget the pack with the least room; False where there is none."""
        if not self.rooms:
            return False
        room = (self.rooms & -self.rooms).bit_length() - 1
        self._packs[room].pop()
        if not self._packs[room]:
            self.rooms &= ~(1 << room)
        return True


def best_fit(
    tokens: Int32[np.ndarray, " sample"], tiles: Int32[np.ndarray, " sample"], *, max_tokens: int, max_tiles: int
) -> Int32[np.ndarray, " sample"]:
    """Return the number of each sample's pack.

    In each window the large samples come first, the largest before all, then the small ones as they stand; each goes
    into the open pack with the least room for tokens that still holds it.

    Args:
        tokens, tiles: sizes, each within the budgets; in random order.
        max_tokens, max_tiles: what a pack may hold.
    """
    pack_of = np.empty(len(tokens), np.int32)
    shares = np.maximum(tokens / max_tokens, tiles / max_tiles)
    with_tiles, without_tiles = _Shelf(max_tokens), _Shelf(max_tokens)
    free_tiles: list[int] = []
    num_open = 0
    for start in range(0, len(tokens), WINDOW_SAMPLES):
        own = shares[start : start + WINDOW_SAMPLES]
        order = start + np.argsort(np.where(own > LARGE_SHARE, -own, 0.0), kind="stable")
        placed: list[int] = []
        for size, need in zip(tokens[order].tolist(), tiles[order].tolist(), strict=True):
            found = None if need else without_tiles.take(size, 0, free_tiles)
            found = found or with_tiles.take(size, need, free_tiles)
            if found is None:
                if num_open == MAX_OPEN_PACKS:
                    _ = without_tiles.close_fullest() or with_tiles.close_fullest()
                    num_open -= 1
                found = len(free_tiles), max_tokens
                free_tiles.append(max_tiles)
                num_open += 1
            pack, room = found
            free_tiles[pack] -= need
            if room > size:
                (with_tiles if free_tiles[pack] else without_tiles).put(pack, room - size)
            else:
                num_open -= 1
            placed.append(pack)
        pack_of[order] = placed
    return pack_of
