"""What a file of rows is to everything behind it: a length, and rows read by number."""

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


class RowTable(ABC):
    """The rows of one file, numbered from 0 here and from 1 in every message."""

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

    @property
    def identity(self) -> str:
        """What tells these rows from others; empty where the files' own identity does."""
        return ""


class ChainTable(RowTable):
    """The rows of several files, one after the other; messages name each file and its number."""

    def __init__(self, tables: Sequence[RowTable], *, label: str) -> None:
        super().__init__(label=label)
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

    def _place(self, index: int) -> tuple[RowTable, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        return self._tables[number], index - (self._ends[number - 1] if number else 0)
