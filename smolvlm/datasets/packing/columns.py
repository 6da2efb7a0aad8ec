"""Samples and packs as columns: which rows form which samples, which samples which pack.

They take some eight bytes a row.

Columns are of 32 bits, and are put into another order a window at a time: numpy widens the places
it is given to 64 bits, which for millions of rows is more memory than the columns themselves. A
`PlannedPack` is made when it is asked for.
"""

import ctypes
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import overload

import numpy as np
from jaxtyping import Int, Int32, Int64, Shaped

WINDOW_ROWS = 1 << 17
"""Rows that are handled together where what is made for each of them on the way is large."""
Rows = tuple[int, ...]
"""Row numbers of one sample: one conversation, or the branches of a tree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPack:
    """A pack before any text or pixel is touched."""

    samples: tuple[Rows, ...]
    num_tokens: int
    num_tiles: int


EMPTY_PACK = PlannedPack(samples=(), num_tokens=0, num_tiles=0)
"""Fills the last step of an epoch where packs run out: every rank takes part in every step."""


def trim_memory() -> None:
    """Give the system back what columns have left behind.

    The GNU C library keeps freed blocks of up to 32 MB, some millions of rows, for as long as
    anything lies above them.
    """
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def windows(num_rows: int) -> Iterator[slice]:
    """Yield slices that together are all rows."""
    return (
        slice(start, min(start + WINDOW_ROWS, num_rows))
        for start in range(0, num_rows, WINDOW_ROWS)
    )


def run_windows(starts: Int[np.ndarray, " bound"]) -> Iterator[slice]:
    """Yield slices that together are all runs, each of `WINDOW_ROWS` or one larger run."""
    begin, num_runs = 0, len(starts) - 1
    while begin < num_runs:
        last = min(int(starts[begin]) + WINDOW_ROWS, int(starts[-1]))
        end = (
            int(np.searchsorted(starts, starts.dtype.type(last), side="right")) - 1
        )  # another type copies all starts
        end = min(max(end, begin + 1), begin + WINDOW_ROWS, num_runs)
        yield slice(begin, end)
        begin = end


def starts_of(sizes: Int[np.ndarray, " run"]) -> Int[np.ndarray, " bound"]:
    """Return where runs of these sizes begin, and at last where the last one ends."""
    is_small = int(sizes.sum(dtype=np.int64)) <= np.iinfo(np.int32).max
    bounds = np.zeros(len(sizes) + 1, np.int32 if is_small else np.int64)
    np.cumsum(sizes, out=bounds[1:], dtype=bounds.dtype)
    return bounds


def spread(
    starts: Int[np.ndarray, " run"], sizes: Int[np.ndarray, " run"]
) -> Int64[np.ndarray, " place"]:
    """Return the places of all runs one after the other: start, start + 1, ... of each."""
    ends = np.cumsum(sizes, dtype=np.int64)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)


def taken(
    column: Shaped[np.ndarray, " row"], order: Int[np.ndarray, " chosen"]
) -> Shaped[np.ndarray, " chosen"]:
    """Return `column[order]`."""
    result = np.empty(len(order), column.dtype)
    for window in windows(len(order)):
        result[window] = column[order[window]]
    return result


def taken_runs(
    column: Int32[np.ndarray, " row"],
    starts: Int[np.ndarray, " bound"],
    order: Int[np.ndarray, " chosen"],
) -> tuple[Int32[np.ndarray, " taken"], Int[np.ndarray, " bound"]]:
    """Return some runs in another order, and where they begin then.

    Args:
        column: run r is `column[starts[r] : starts[r + 1]]`.
        starts: of all runs, and at last where the last one ends.
        order: numbers of runs; -1 is an empty one.
    """
    sizes = np.empty(len(order), np.int32)
    for window in windows(len(order)):
        runs = order[window]
        sizes[window] = np.where(runs < 0, 0, starts[runs + 1] - starts[runs])
    new_starts = starts_of(sizes)
    result = np.empty(new_starts[-1], column.dtype)
    for window in run_windows(new_starts):
        place = slice(new_starts[window.start], new_starts[window.stop])
        result[place] = column[spread(starts[order[window]], sizes[window])]
    return result, new_starts


def joined_runs(
    parts: Sequence[tuple[Int32[np.ndarray, " row"], Int[np.ndarray, " bound"]]],
) -> tuple[Int32[np.ndarray, " row"], Int[np.ndarray, " bound"]]:
    """Return all parts' runs, one part's after the other's."""
    sizes = np.concatenate([np.zeros(0, np.int32), *(np.diff(starts) for _, starts in parts)])
    return np.concatenate([np.zeros(0, np.int32), *(column for column, _ in parts)]), starts_of(
        sizes
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleTable:
    """Samples as columns: their rows and sizes; a tree's shared beginning counts once."""

    rows: Int32[np.ndarray, " row"]
    """Row numbers, sample after sample."""
    starts: Int[np.ndarray, " sample+1"]
    """Sample s is `rows[starts[s] : starts[s + 1]]`."""
    num_tokens: Int32[np.ndarray, " sample"]
    num_tiles: Int32[np.ndarray, " sample"]

    def __len__(self) -> int:
        return len(self.num_tokens)

    def reordered(self, order: Int[np.ndarray, " chosen"]) -> "SampleTable":
        """Return the samples in another order."""
        rows, starts = taken_runs(self.rows, self.starts, order)
        return SampleTable(
            rows=rows,
            starts=starts,
            num_tokens=taken(self.num_tokens, order),
            num_tiles=taken(self.num_tiles, order),
        )

    @classmethod
    def joined(cls, parts: Iterable["SampleTable"]) -> "SampleTable":
        """Return the samples of all parts, one after the other."""
        tables = list(parts)
        if len(tables) == 1:
            return tables[0]
        rows, starts = joined_runs([(part.rows, part.starts) for part in tables])
        empty = np.zeros(0, np.int32)
        return cls(
            rows=rows,
            starts=starts,
            num_tokens=np.concatenate([empty, *(part.num_tokens for part in tables)]),
            num_tiles=np.concatenate([empty, *(part.num_tiles for part in tables)]),
        )


class PlannedPacks(Sequence[PlannedPack]):
    """Many packs as columns."""

    def __init__(
        self,
        *,
        rows: Int32[np.ndarray, " row"],
        sample_starts: Int[np.ndarray, " sample+1"],
        pack_starts: Int[np.ndarray, " pack+1"],
        num_tokens: Int32[np.ndarray, " pack"],
        num_tiles: Int32[np.ndarray, " pack"],
    ) -> None:
        """
        Args:
            rows: row numbers, sample after sample.
            sample_starts: sample s is `rows[sample_starts[s] : sample_starts[s + 1]]`.
            pack_starts: pack p holds samples pack_starts[p] to pack_starts[p + 1].
            num_tokens, num_tiles: of each pack.
        """
        self._rows = rows
        self._sample_starts = sample_starts
        self._pack_starts = pack_starts
        self.num_tokens = num_tokens
        self.num_tiles = num_tiles

    @classmethod
    def of(cls, packs: Iterable[PlannedPack]) -> "PlannedPacks":
        """Turn packs into columns."""
        planned = list(packs)
        samples = [rows for pack in planned for rows in pack.samples]
        return cls(
            rows=np.array([row for rows in samples for row in rows], np.int32),
            sample_starts=starts_of(np.array([len(rows) for rows in samples], np.int32)),
            pack_starts=starts_of(np.array([len(pack.samples) for pack in planned], np.int32)),
            num_tokens=np.array([pack.num_tokens for pack in planned], np.int32),
            num_tiles=np.array([pack.num_tiles for pack in planned], np.int32),
        )

    @classmethod
    def joined(cls, parts: Sequence["PlannedPacks"]) -> "PlannedPacks":
        """Return the packs of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        rows, sample_starts = joined_runs([(part._rows, part._sample_starts) for part in parts])
        num_tokens, pack_starts = joined_runs(
            [(part.num_tokens, part._pack_starts) for part in parts]
        )
        empty = np.zeros(0, np.int32)
        return cls(
            rows=rows,
            sample_starts=sample_starts,
            pack_starts=pack_starts,
            num_tokens=num_tokens,
            num_tiles=np.concatenate([empty, *(part.num_tiles for part in parts)]),
        )

    def __len__(self) -> int:
        return len(self.num_tokens)

    @overload
    def __getitem__(self, index: int) -> PlannedPack: ...
    @overload
    def __getitem__(self, index: slice) -> "PlannedPacks": ...
    def __getitem__(self, index: int | slice) -> "PlannedPack | PlannedPacks":
        if isinstance(index, slice):
            return self.reordered(np.arange(len(self))[index])
        number = range(len(self))[index]
        begin, end = self._pack_starts[number], self._pack_starts[number + 1]
        starts = self._sample_starts[begin : end + 1].tolist()
        rows = self._rows[starts[0] : starts[-1]].tolist()
        return PlannedPack(
            samples=tuple(
                tuple(rows[first - starts[0] : last - starts[0]])
                for first, last in pairwise(starts)
            ),
            num_tokens=int(self.num_tokens[number]),
            num_tiles=int(self.num_tiles[number]),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlannedPacks) and self.digest() == other.digest()

    __hash__ = None  # pyright: ignore[reportAssignmentType] - columns, compared by content

    @property
    def rows(self) -> Int32[np.ndarray, " row"]:
        """Row numbers, pack after pack; a row comes up in each epoch."""
        return self._rows

    def reordered(self, order: Int[np.ndarray, " chosen"]) -> "PlannedPacks":
        """Return some of the packs, in another order; -1 is an empty one."""
        row_starts = self._sample_starts[self._pack_starts]
        sample_sizes, pack_starts = taken_runs(
            np.diff(self._sample_starts), self._pack_starts, order
        )
        sample_starts = starts_of(sample_sizes)
        del sample_sizes
        is_empty = order < 0
        return PlannedPacks(
            rows=taken_runs(self._rows, row_starts, order)[0],
            sample_starts=sample_starts,
            pack_starts=pack_starts,
            num_tokens=np.where(is_empty, 0, self.num_tokens[order] if len(self) else 0).astype(
                np.int32
            ),
            num_tiles=np.where(is_empty, 0, self.num_tiles[order] if len(self) else 0).astype(
                np.int32
            ),
        )

    @property
    def num_samples(self) -> Int[np.ndarray, " pack"]:
        """Samples in each pack."""
        return np.diff(self._pack_starts)

    @property
    def num_rows(self) -> int:
        """Rows in all packs together."""
        return len(self._rows)

    def digest(self) -> str:
        """Return a digest of which rows meet in which pack."""
        digest = blake2b(digest_size=16)
        for column in (self._rows, self._sample_starts, self._pack_starts):
            for window in windows(len(column)):
                digest.update(column[window].astype(np.int64).tobytes())
        return digest.hexdigest()
