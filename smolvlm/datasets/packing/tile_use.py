"""How often a run shows its tiles: what keeping their features may save, known from the plan.

In: the plan, the sizes of all rows. Out: a `TileUse`. Rows that begin with the same pictures count
those once; a picture that comes up elsewhere in two rows counts twice, so there may be fewer
distinct tiles than said here, and never more.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from smolvlm.datasets.packing.columns import windows
from smolvlm.datasets.packing.lengths import LengthTable
from smolvlm.datasets.packing.plan import Plan


@dataclass(frozen=True, kw_only=True, slots=True)
class TileUse:
    """Tiles of a run."""

    num_distinct: int
    num_shown: tuple[int, ...]
    """In each epoch, those of a pack once."""

    @property
    def total_shown(self) -> int:
        return sum(self.num_shown)

    @property
    def num_repeated(self) -> int:
        """How many of those shown were shown before."""
        return max(self.total_shown - self.num_distinct, 0)

    @classmethod
    def of(cls, plan: Plan, lengths: LengthTable, *, is_shown_before: bool = False) -> "TileUse":
        """Count a run's tiles.

        Args:
            plan: all steps.
            lengths: of all rows.
            is_shown_before: whether a reference model sees all rows before the first step.
        """
        ends = [end * plan.packs_per_step for end in plan.epoch_ends]
        tiles, rows = plan.packs.num_tiles, plan.packs.rows
        shown = [
            int(tiles[begin:end].sum(dtype=np.int64))
            for begin, end in zip([0, *ends], ends, strict=False)
        ]
        is_seen = np.full(len(lengths), is_shown_before)
        for window in windows(len(rows)):
            is_seen[rows[window]] = True
        distinct = _num_distinct(lengths, is_seen)
        if shown and is_shown_before:
            shown[0] += distinct
        return cls(num_distinct=distinct, num_shown=tuple(shown))


def _num_distinct(lengths: LengthTable, is_seen: Bool[np.ndarray, " row"]) -> int:
    """Return how many tiles these rows have, those of a common beginning once."""
    total = int(lengths.num_tiles[is_seen].sum(dtype=np.int64))
    is_sharing = is_seen & (lengths.prefix_group >= 0)
    prefixes = lengths.prefix_tiles[is_sharing]
    _, first = np.unique(lengths.prefix_group[is_sharing], return_index=True)
    return total - int(prefixes.sum(dtype=np.int64)) + int(prefixes[first].sum(dtype=np.int64))
