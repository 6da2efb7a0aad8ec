"""Many packs as columns: which rows form which samples, which samples which pack. Some twelve bytes a row.

A `PlannedPack` is made when it is asked for.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import overload

import numpy as np
from jaxtyping import Int32, Int64

from smolvlm.datasets.best_fit import joined_starts, spread, starts_of

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


class PlannedPacks(Sequence[PlannedPack]):
    """Many packs as columns."""

    def __init__(
        self,
        *,
        rows: Int32[np.ndarray, " row"],
        sample_starts: Int64[np.ndarray, " sample+1"],
        pack_starts: Int64[np.ndarray, " pack+1"],
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
        given = list(packs)
        samples = [rows for pack in given for rows in pack.samples]
        return cls(
            rows=np.array([row for rows in samples for row in rows], np.int32),
            sample_starts=np.cumsum([0, *map(len, samples)]),
            pack_starts=np.cumsum([0, *(len(pack.samples) for pack in given)]),
            num_tokens=np.array([pack.num_tokens for pack in given], np.int32),
            num_tiles=np.array([pack.num_tiles for pack in given], np.int32),
        )

    @classmethod
    def joined(cls, parts: Sequence["PlannedPacks"]) -> "PlannedPacks":
        """Return the packs of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        empty = np.zeros(0, np.int32)
        return cls(
            rows=np.concatenate([empty, *(part._rows for part in parts)]),
            sample_starts=joined_starts([part._sample_starts for part in parts]),
            pack_starts=joined_starts([part._pack_starts for part in parts]),
            num_tokens=np.concatenate([empty, *(part.num_tokens for part in parts)]),
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
            samples=tuple(tuple(rows[first - starts[0] : last - starts[0]]) for first, last in pairwise(starts)),
            num_tokens=int(self.num_tokens[number]),
            num_tiles=int(self.num_tiles[number]),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlannedPacks) and self.digest() == other.digest()

    __hash__ = None  # pyright: ignore[reportAssignmentType] - columns, compared by content

    def reordered(self, order: Int64[np.ndarray, " chosen"]) -> "PlannedPacks":
        """Return some of the packs, in another order; -1 is an empty one."""
        is_empty = order < 0
        sizes = np.where(is_empty, 0, np.diff(self._pack_starts)[order] if len(self) else 0)
        samples = spread(self._pack_starts[order], sizes)
        sample_sizes = np.diff(self._sample_starts)[samples]
        return PlannedPacks(
            rows=self._rows[spread(self._sample_starts[samples], sample_sizes)],
            sample_starts=starts_of(sample_sizes),
            pack_starts=starts_of(sizes),
            num_tokens=np.where(is_empty, 0, self.num_tokens[order] if len(self) else 0).astype(np.int32),
            num_tiles=np.where(is_empty, 0, self.num_tiles[order] if len(self) else 0).astype(np.int32),
        )

    @property
    def num_samples(self) -> Int64[np.ndarray, " pack"]:
        """Samples in each pack."""
        return np.diff(self._pack_starts)

    @property
    def num_rows(self) -> int:
        """Rows in all packs together."""
        return len(self._rows)

    def digest(self) -> str:
        """Return a digest of which rows meet in which pack."""
        made = blake2b(digest_size=16)
        for column in (self._rows, self._sample_starts, self._pack_starts):
            made.update(np.ascontiguousarray(column, np.int64).tobytes())
        return made.hexdigest()
