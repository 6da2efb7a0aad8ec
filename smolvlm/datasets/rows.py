"""Sources in, conversations out: every used row checked once, then read again only when it is needed.

The rows stay in their tables (`tables.py`); a conversation is made from its row at each access, some ten
microseconds. So the first pass can report or skip every bad row before anything loads, and a hundred thousand rows with
pictures in them don't stand in memory twice.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from smolvlm.datasets.row_formats import to_conversation
from smolvlm.datasets.sources import BadSamplePolicy, SourceSpec
from smolvlm.datasets.tables import RowTable, read_rows
from smolvlm.errors import SampleError
from smolvlm.records import Conversation, SkippedRow

_MAX_REASONS = 5


class LazyConversations(Sequence[Conversation]):
    """The used rows of all sources, in mixture order; each access reads its row anew, and equals every other."""

    def __init__(self, tables: Sequence[tuple[SourceSpec, RowTable]], table_of: np.ndarray, row_of: np.ndarray) -> None:
        self._tables = tuple(tables)
        self._table_of = table_of
        self._row_of = row_of

    def __len__(self) -> int:
        return len(self._row_of)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> "LazyConversations": ...
    def __getitem__(self, index: int | slice) -> "Conversation | LazyConversations":
        if isinstance(index, slice):
            return LazyConversations(self._tables, self._table_of[index], self._row_of[index])
        spec, table = self._tables[self._table_of[index]]
        row = int(self._row_of[index])
        return to_conversation(table[row], spec=spec, where=table.where(row))

    def __iter__(self) -> Iterator[Conversation]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceCount:
    """What became of one source's rows."""

    name: str
    num_rows: int
    """Rows in the file."""
    num_sampled: int
    """Rows that its sampling strategy chose."""
    num_skipped: int
    """Chosen rows left out as bad."""
    repeat: int
    """Times an epoch goes through the rest: it gives (num_sampled - num_skipped) * repeat conversations."""
    skip_reasons: Mapping[str, int]
    """Reason -> count, the most frequent first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ConversationSet:
    """All conversations of a mixture."""

    conversations: Sequence[Conversation]
    """In mixture order, repeats included; each access makes its conversation anew."""
    skipped: tuple[SkippedRow, ...]
    """Rows left out under `on_bad_sample: skip`, once each."""
    counts: tuple[SourceCount, ...]
    """One for each source, in mixture order."""


def load_conversations(
    specs: Sequence[SourceSpec], *, on_bad_sample: BadSamplePolicy, max_bad_fraction: float
) -> ConversationSet:
    """Read the used rows of all sources, checking each.

    Args:
        specs: the mixture's sources.
        on_bad_sample: `error` raises at the first bad row, `skip` leaves bad rows out and counts them; a source's own
            `on_bad_sample` goes before it.
        max_bad_fraction: largest share of a source's used rows that may be skipped, 0 to 1.

    Raises:
        SampleError: a file cannot be read; a row is bad under `error`; too many, or all, are bad under `skip`.
    """
    tables: list[tuple[SourceSpec, RowTable]] = []
    rows_of_table: list[np.ndarray] = []
    skipped: list[SkippedRow] = []
    counts: list[SourceCount] = []
    for spec in specs:
        table = read_rows(spec)
        sampled = spec.sampling.rows(len(table), seed=spec.seed)
        good, bad = check_rows(table, sampled, spec=spec, skips_bad=(spec.on_bad_sample or on_bad_sample) == "skip")
        _check_bad_fraction(bad, num_rows=len(sampled), spec=spec, max_bad_fraction=max_bad_fraction)
        tables.append((spec, table))
        rows_of_table.append(np.tile(np.array(good, dtype=np.int64), spec.repeat))
        skipped += bad
        counts.append(
            SourceCount(
                name=spec.name,
                num_rows=len(table),
                num_sampled=len(sampled),
                num_skipped=len(bad),
                repeat=spec.repeat,
                skip_reasons=dict(Counter(row.reason for row in bad).most_common()),
            )
        )
    table_of = np.repeat(np.arange(len(tables)), [len(rows) for rows in rows_of_table])
    row_of = np.concatenate(rows_of_table) if rows_of_table else np.empty(0, dtype=np.int64)
    conversations = LazyConversations(tables, table_of, row_of)
    return ConversationSet(conversations=conversations, skipped=tuple(skipped), counts=tuple(counts))


def check_rows(
    table: RowTable, rows: Iterable[int], *, spec: SourceSpec, skips_bad: bool
) -> tuple[list[int], list[SkippedRow]]:
    """Return the numbers of the good rows, and the bad ones with their reasons.

    Raises:
        SampleError: a row is bad and `skips_bad` is false.
    """
    good: list[int] = []
    bad: list[SkippedRow] = []
    for row in rows:
        try:
            to_conversation(table[row], spec=spec, where=table.where(row))
        except SampleError as error:
            if not skips_bad:
                raise
            bad.append(SkippedRow(where=table.where(row), reason=error.what))
        else:
            good.append(row)
    return good, bad


def _check_bad_fraction(bad: Sequence[SkippedRow], *, num_rows: int, spec: SourceSpec, max_bad_fraction: float) -> None:
    if not bad or (len(bad) <= max_bad_fraction * num_rows and len(bad) < num_rows):
        return
    reasons = Counter(row.reason for row in bad).most_common()
    listed = "; ".join(f"{count} x {reason}" for reason, count in reasons[:_MAX_REASONS])
    more = f"; and {len(reasons) - _MAX_REASONS} more reasons" if len(reasons) > _MAX_REASONS else ""
    share = f"{len(bad)} of {num_rows} rows are bad ({100 * len(bad) / num_rows:.3g} %)"
    raise SampleError(
        f"{share}, more than max_bad_fraction = {max_bad_fraction} allows: {listed}{more}; the first is {bad[0].where}",
        where=spec.label,
        fix="mend the rows, or raise `data.max_bad_fraction`",
    )
