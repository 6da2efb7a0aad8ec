"""Sources in, rows out: each used row as a conversation, read anew whenever it is needed.

The rows stay in their tables (`tables.py`); a conversation is made from its row at each access,
which takes less than its text takes to encode. So millions of rows cost a process a number each.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
from jaxtyping import Int8, Int16, Int32

from smolvlm.datasets.rows.filtered import filtered_rows
from smolvlm.datasets.rows.formats import to_conversation
from smolvlm.datasets.rows.row_table import RowTable
from smolvlm.datasets.rows.sources import BadSamplePolicy, SourceSpec
from smolvlm.datasets.rows.tables import open_table
from smolvlm.errors import SampleError, located
from smolvlm.records import Conversation


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSource:
    """A source with its file open."""

    spec: SourceSpec
    table: RowTable
    rows: Int32[np.ndarray, " used"]
    """Numbers of the rows that the sampling strategy chose, ascending."""
    num_filtered: int = 0
    """Rows of the file that the source's filter leaves out, before sampling."""

    def all_rows(self) -> "Conversations":
        """Return every row of the file as a conversation, by its number in the file."""
        return Conversations([(self.spec, self.table)], np.zeros(len(self.table), np.int16), None)


class Conversations(Sequence[Conversation]):
    """Rows of several sources; each access reads its row anew, and equals every other."""

    def __init__(
        self,
        tables: Sequence[tuple[SourceSpec, RowTable]],
        table_of: Int16[np.ndarray, " row"] | Int8[np.ndarray, " row"],
        row_of: Int32[np.ndarray, " row"] | None,
    ) -> None:
        """
        Args:
            tables: the sources.
            table_of: which table each row is in.
            row_of: its number there; None is the place in the sequence.
        """
        self._tables = tuple(tables)
        self._table_of = table_of
        self._row_of = row_of

    def __len__(self) -> int:
        return len(self._table_of)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> "Conversations": ...
    def __getitem__(self, index: int | slice) -> "Conversation | Conversations":
        """Return a row as a conversation.

        Raises:
            SampleError: it is no conversation that can be trained on.
        """
        if isinstance(index, slice):
            numbers = np.arange(len(self), dtype=np.int32)[index]
            rows = numbers if self._row_of is None else self._row_of[index]
            return Conversations(self._tables, self._table_of[index], rows)
        spec, table, row = self._place(index)
        where = table.where(row)
        with located(where):
            return to_conversation(table[row], spec=spec, where=where)

    def __iter__(self) -> Iterator[Conversation]:
        return (self[index] for index in range(len(self)))

    def where(self, index: int) -> str:
        """Return the `file:row` of a row; nothing of it is read but its number."""
        _, table, row = self._place(index)
        return table.where(row)

    def own_policy(self, index: int) -> BadSamplePolicy | None:
        """Return `on_bad_sample` of a row's source; None where it follows the run."""
        spec, _, _ = self._place(index)
        return spec.on_bad_sample

    @property
    def source_names(self) -> tuple[str, ...]:
        """Names of all sources, sorted."""
        return tuple(sorted({spec.name for spec, _ in self._tables}))

    def _place(self, index: int) -> tuple[SourceSpec, RowTable, int]:
        number = range(len(self))[index]
        spec, table = self._tables[self._table_of[number]]
        return spec, table, number if self._row_of is None else int(self._row_of[number])


def unread_keys(source: OpenSource, *, max_rows: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys of a source's first rows that nothing is made of, and those that its
    `not_read` leaves out, sorted.

    Args:
        source: whose rows that cannot be used are passed over here.
        max_rows: how many of its used rows are looked at.
    """
    conversations = source.all_rows()
    found: set[str] = set()
    left_out: set[str] = set()
    for row in source.rows[:max_rows].tolist():
        try:
            conversation = conversations[row]
        except SampleError:
            continue  # counted where rows are measured
        found.update(conversation.unread_keys)
        left_out.update(conversation.left_out_keys)
    return tuple(sorted(found)), tuple(sorted(left_out))


def open_sources(specs: Iterable[SourceSpec]) -> tuple[OpenSource, ...]:
    """Open the files of a mixture's sources and choose their rows; only a filter looks into them.

    Raises:
        SampleError: a file cannot be read, is not of its format, or has no rows; or a filter
            cannot judge a row, or keeps none.
    """
    opened: list[OpenSource] = []
    for spec in specs:
        table = open_table(spec)
        kept = filtered_rows(spec.row_filter, table)
        chosen = np.fromiter(spec.sampling.rows(len(kept), seed=spec.seed), np.int32)
        num_filtered = len(table) - len(kept)
        opened.append(
            OpenSource(spec=spec, table=table, rows=kept[chosen], num_filtered=num_filtered)
        )
    return tuple(opened)
