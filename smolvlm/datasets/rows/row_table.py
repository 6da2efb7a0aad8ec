"""What a file of rows is to everything behind it: a length, and rows read by number."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

from smolvlm.config.suggestions import did_you_mean
from smolvlm.errors import SampleError


class RowTable(ABC):
    """The rows of one file, numbered from 0 here and from 1 in every message."""

    has_types = True
    """Whether values have kinds of their own; a CSV file's are all text."""
    empty_files: tuple[str, ...] = ()
    """Labels of the source's files that have no rows."""

    def __init__(self, *, label: str) -> None:
        self.label = label

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> object:
        """Return row `index` as JSON-like values, an object or not.

        Raises:
            SampleError: the row's text is not JSON.
        """

    def where(self, index: int) -> str:
        """Return the `file:row` of row `index`."""
        return f"{self.label}:{index + 1}"

    def values(self, column: str) -> Iterator[object]:
        """Yield one column's value of every row, under the file's own name.

        A row that cannot be read gives its `SampleError` as the value.

        Raises:
            SampleError: a row has no such column.
        """
        for index in range(len(self)):
            row = value_or_error(lambda index=index: self[index])
            if isinstance(row, SampleError):
                yield row
            elif not isinstance(row, dict):
                yield SampleError("the row is no object")
            elif column not in row:
                raise no_column(column, row, where=self.where(index))
            else:
                yield row[column]

    @property
    def identity(self) -> str:
        """What tells these rows from others; empty where the files' own identity does."""
        return ""


class ChainTable(RowTable):
    """The rows of several files, one after the other; messages name each file and its number."""

    def __init__(
        self, tables: Sequence[RowTable], *, label: str, empty_files: Sequence[str] = ()
    ) -> None:
        super().__init__(label=label)
        self.empty_files = tuple(empty_files)
        self.has_types = all(table.has_types for table in tables)
        self._tables = tuple(tables)
        self._ends = list(accumulate(map(len, tables)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> object:
        table, row = self._place(index)
        return table[row]

    def where(self, index: int) -> str:
        table, row = self._place(index)
        return table.where(row)

    def values(self, column: str) -> Iterator[object]:
        for table in self._tables:
            yield from table.values(column)

    def _place(self, index: int) -> tuple[RowTable, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return self._tables[number], index - (self._ends[number - 1] if number else 0)


def value_or_error(read: Callable[[], object]) -> object:
    """Return what `read` returns, or the `SampleError` that it raises."""
    try:
        return read()
    except SampleError as error:
        return error


def no_column(column: str, columns: Iterable[object], *, where: str) -> SampleError:
    """Return the error of a row, or a file, that lacks a column which a filter asks for."""
    names = [str(name) for name in columns]
    fix = did_you_mean(column, names) or "write it as null where a row has none"
    what = f"no column `{column}`, which `filter` names"
    return SampleError(what, where=where, fix=fix)
