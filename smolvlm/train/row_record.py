"""Whether a run's rows, and the files that they name, are those that it began with.

In: digests of all rows from their measuring, and of their media as they are read. Out: a file in
every checkpoint; on resuming, what changed, by name; and an error at the first row whose files are
not what they were. Bytes are compared wherever they are read anyway, which is before each step that
learns from them; until then files are compared by size and time of change. `verify_all` reads all.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from accelerate.utils import gather_object
from jaxtyping import Int64

from smolvlm.datasets.packing.measured import MeasuredSet
from smolvlm.datasets.packing.media_reader import read_media
from smolvlm.datasets.packing.row_digests import DIGESTS, NO_MEDIA, MediaState, RowDigests
from smolvlm.datasets.rows.conversations import Conversations
from smolvlm.errors import ConfigError, SampleError
from smolvlm.notices import notice

FILE_NAME = "row_digests.parquet"
OnChange = Literal["error", "warn"]
FIX = "put the files back, or go on with them as they are: train.on_changed_data: warn"
_NAMED = 3
_SCHEMA = pa.schema([(name, pa.int64()) for name in (*DIGESTS, "read")])


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    """What a checkpoint's file holds."""

    digests: RowDigests
    read: Int64[np.ndarray, " row"]


class RowRecord:
    """What a run knows of its rows; each rank has one, and they join at each checkpoint."""

    def __init__(
        self, digests: RowDigests, conversations: Conversations, *, on_change: OnChange = "error"
    ) -> None:
        """
        Args:
            digests: of the run's rows as they are now.
            conversations: the rows.
            on_change: whether what changed ends the run, or is said.
        """
        self._digests = digests
        self._conversations = conversations
        self._read: Int64[np.ndarray, " row"] = np.full(len(digests), NO_MEDIA, np.int64)
        self._on_change: OnChange = on_change
        self._began_with: RowDigests | None = None  # of a resumed run
        self._were_copied = False
        self._new: list[tuple[int, int]] = []

    @classmethod
    def of(cls, measured: MeasuredSet, *, on_change: OnChange) -> "RowRecord":
        """Return the record of measured rows."""
        assert measured.digests is not None, "rows of files have digests"
        return cls(measured.digests, measured.conversations, on_change=on_change)

    @property
    def bears_changes(self) -> bool:
        """Whether the run goes on with rows that changed."""
        return self._on_change == "warn"

    # ---- on resuming

    def changes(self, checkpoint: Path) -> list[str]:
        """Return what changed since the run of a checkpoint began, in lines; nothing is read."""
        kept = _kept(checkpoint)
        if kept is None:
            return []
        if len(kept.digests) != len(self._digests):
            return [self._other_number(kept.digests)]
        content, sizes, times = self._changed(kept)
        lines = [
            (content, "another text, or other media in it or named in it", False),
            (sizes, "its files are others, or have other sizes", True),
            (times, "its files have another time of change, and had not been read before", True),
        ]
        return [
            f"- {self._names(rows, with_media=with_media)}: {words}"
            for rows, words, with_media in lines
            if len(rows)
        ]

    def resume(self, checkpoint: Path) -> list[str]:
        """Take over what the run of a checkpoint has read, and return what is to be said, in lines.

        Rows that changed since, where the run bears that, are taken as they are now.
        """
        kept = _kept(checkpoint)
        if kept is None:
            return [f"note: {checkpoint} holds no digests of rows: changes are not noticed"]
        lines = self.changes(checkpoint)
        if len(kept.digests) == len(self._digests):
            changed = np.concatenate(self._changed(kept))
            self._read = kept.read.copy()
            self._read[changed] = NO_MEDIA
            self._were_copied = self._is_copy(kept)
            columns = {name: getattr(kept.digests, name).copy() for name in DIGESTS}
            for name, column in columns.items():
                column[changed] = getattr(self._digests, name)[changed]
            self._began_with = RowDigests(**columns)
        notes = (
            [
                "note: media have other times of change than when the run began, all of them, as "
                "copies do; they are compared by size, and by content once read"
            ]
            if self._were_copied
            else []
        )
        head = "note: goes on with what changed (train.on_changed_data: warn):"
        return [*notes, *([head, *lines] if lines else [])]

    def verify_all(self, *, rank: int = 0, num_ranks: int = 1) -> None:
        """Read the media of all rows and compare them; ranks share the work.

        Raises:
            SampleError: one cannot be read.
            ConfigError: some are not what they were, with their rows.
        """
        rows = np.flatnonzero(self._digests.media_sizes != NO_MEDIA)[rank::num_ranks]
        states = read_media(self._conversations, rows.tolist())
        changed = [state.row for state in states if self._is_changed(state)]
        for state in states:
            self._note(state)
        if num_ranks > 1:
            changed = sorted(gather_object(changed))
        if changed:
            what = f"files changed since the run read them: {self._names(changed, with_media=True)}"
            if not self.bears_changes:
                raise ConfigError(what, where="train.verify_data", fix=FIX)
            notice(f"{what}; they are taken as they are now")

    # ---- while training

    def add(self, states: Iterable[MediaState]) -> None:
        """Compare files that were read for a step with what they were.

        Raises:
            SampleError: of a row, they are not.
        """
        for state in states:
            if self._is_changed(state):
                what = (
                    f"the files of this row changed since the run began ({self._media(state.row)})"
                )
                where = self._conversations.where(state.row)
                if not self.bears_changes:
                    raise SampleError(what, kind="changed_row", where=where, fix=FIX)
                notice(f"{where}: {what}; they are taken as they are now")
            self._note(state)

    def save(self, folder: Path, *, is_writer: bool) -> None:
        """Write what all ranks know to a checkpoint's folder; every rank calls it, one writes."""
        for row, read in gather_object(self._new):
            self._read[row] = read
        self._new = []
        if is_writer:
            columns = {name: getattr(self._digests, name) for name in DIGESTS}
            pq.write_table(pa.table(columns | {"read": self._read}), folder / FILE_NAME)

    def _note(self, state: MediaState) -> None:
        if self._read[state.row] != state.read:
            self._read[state.row] = state.read
            self._new.append((state.row, state.read))

    def _is_changed(self, state: MediaState) -> bool:
        known, before = self._read[state.row], self._began_with
        if known != NO_MEDIA:
            return bool(known != state.read)
        if before is None:
            return False
        is_time_other = not self._were_copied and before.media_times[state.row] != state.times
        return bool(before.media_sizes[state.row] != state.sizes or is_time_other)

    # ---- what changed

    def _changed(self, kept: _Kept) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the rows whose content changed; else their files' sizes; else their times, where
        the bytes were not read before."""
        now, then = self._digests, kept.digests
        content = now.content != then.content
        sizes = ~content & (now.media_sizes != then.media_sizes)
        times = ~content & ~sizes & (now.media_times != then.media_times) & (kept.read == NO_MEDIA)
        if self._is_copy(kept):
            times[:] = False
        return np.flatnonzero(content), np.flatnonzero(sizes), np.flatnonzero(times)

    def _is_copy(self, kept: _Kept) -> bool:
        """Say whether every row's files have other times: a copy of all, and no change of some."""
        has_media = self._digests.media_sizes != NO_MEDIA
        return bool(
            has_media.any()
            and (self._digests.media_times != kept.digests.media_times)[has_media].all()
        )

    def _other_number(self, then: RowDigests) -> str:
        """Return a line about rows that were taken out or added, by the first that differs."""
        shorter = min(len(then), len(self._digests))
        differs = self._digests.content[:shorter] != then.content[:shorter]
        first = int(np.argmax(differs)) if differs.any() else shorter
        numbers = f"- the rows: {len(then):,} there, {len(self._digests):,} here"
        if first >= len(self._digests):
            return f"{numbers}; the last ones are gone"
        return f"{numbers}; the first that differs is {self._conversations.where(first)}"

    def _names(self, rows: Sequence[int] | np.ndarray, *, with_media: bool) -> str:
        names = [
            self._conversations.where(int(row))
            + (f" ({self._media(int(row))})" if with_media else "")
            for row in rows[:_NAMED]
        ]
        more = len(rows) - len(names)
        return ", ".join(names) + (f" and {more:,} more" if more else "")

    def _media(self, row: int) -> str:
        return ", ".join(medium.name for medium in self._conversations[row].media)


def _kept(checkpoint: Path) -> _Kept | None:
    """Return what a checkpoint holds of its rows; None for one of an earlier version."""
    path = checkpoint / FILE_NAME
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path, schema=_SCHEMA)
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{FILE_NAME} cannot be read: {error}",
            where=str(checkpoint),
            fix="resume from another checkpoint",
        ) from error
    read, *digests = (table[name].to_numpy() for name in ("read", *DIGESTS))
    return _Kept(digests=RowDigests(**dict(zip(DIGESTS, digests, strict=True))), read=read)
