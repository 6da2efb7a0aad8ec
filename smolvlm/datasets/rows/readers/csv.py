"""CSV and TSV files cut into rows as they stream by: each row's cells as text.

In: an open file. Out: the names of the columns from its first line, and tuples of cells. Every
cell is text (`007` stays `007`), an empty one is absent. The separator of a `.csv` file is the one
of comma, semicolon and tab that stands in its first line; that there are two, or a row with other
than the first line's number of cells, is an error and no guess.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from smolvlm.config.problems import shown_value
from smolvlm.datasets.rows.readers.streams import (
    MAX_ROW_BYTES,
    OversizeRow,
    lines_of,
    oversize_row,
)
from smolvlm.errors import SampleError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab"}
_NO_SEPARATOR = "|"
"""Separates columns in files that are not read; no name of a column has it."""


class CsvFile:
    """A file's columns, and its rows as they stream by."""

    def __init__(
        self, stream: BinaryIO, *, is_tsv: bool, label: str, max_row_bytes: int = MAX_ROW_BYTES
    ) -> None:
        """Read the first line.

        Raises:
            SampleError: it does not name the columns, or the file is no CSV.
        """
        self._label = label
        self._max_row_bytes = max_row_bytes
        self._row_bytes = 0
        self._lines = self._text_lines(stream)
        first = next(self._lines, "")
        self._separator = "\t" if is_tsv else _separator(first, label=label)
        self._reader = csv.reader(
            _chained(first, self._lines), delimiter=self._separator, strict=True
        )
        self.columns = self._column_names() if first.strip() else ()
        self._strips = ", " in first or "; " in first

    def rows(self) -> Iterator[tuple[str | None, ...]]:
        """Yield the cells of each row; blank lines are no rows.

        Raises:
            SampleError: a row with too many or too few cells, or quotes that do not match.
        """
        number = 1
        while (cells := self._next(number)) is not None:
            if not cells:
                continue
            if len(cells) != len(self.columns):
                what = f"{len(cells)} cells where the first line names {len(self.columns)} columns"
                fix = "quote cells that hold the separator or a newline"
                raise self._error(what, fix=fix, number=number)
            if self._strips:  # so does the first line: "question, answer"
                cells = [cell.strip() for cell in cells]
            yield tuple(cell or None for cell in cells)
            number += 1

    def _next(self, number: int) -> list[str] | None:
        limit = csv.field_size_limit(self._max_row_bytes)  # one for the whole process
        self._row_bytes = 0
        try:
            return next(self._reader, None)
        except SampleError as error:
            error.where = error.where or f"{self._label}:{max(number, 1)}"
            raise
        except csv.Error as error:
            fix = 'quote cells with "...", and write a quote within as ""; lines end in a newline'
            raise self._error(f"not CSV: {error}", fix=fix, number=number) from None
        finally:
            csv.field_size_limit(limit)

    def _column_names(self) -> tuple[str, ...]:
        names = [name.strip() for name in self._next(0) or []]
        self._check_names(names)
        return tuple(names)

    def _check_names(self, names: Sequence[str]) -> None:
        if "" in names:
            what = f"column {names.index('') + 1} of the first line has no name"
            fix = "name it; pandas writes none for its index (`to_csv(..., index=False)`)"
            raise self._error(what, fix=fix)
        for name, count in Counter(names).items():
            if count > 1:
                what = f"{count} columns are named {shown_value(name)}"
                raise self._error(what, fix="name them apart, or keep one")
        strange = {*SEPARATORS, _NO_SEPARATOR} - {self._separator}
        if len(names) == 1 and not strange.isdisjoint(names[0]):
            what = f"the first line is one column, {shown_value(names[0])}"
            fix = "separate the columns of .tsv by tabs, of .csv by commas, semicolons or tabs"
            raise self._error(what, fix=fix)

    def _text_lines(self, stream: BinaryIO) -> Iterator[str]:
        lines = lines_of(stream, max_row_bytes=self._max_row_bytes)
        for number, line in enumerate(lines, start=1):
            self._row_bytes += int(line) if isinstance(line, OversizeRow) else len(line)
            if isinstance(line, OversizeRow) or self._row_bytes > self._max_row_bytes:
                raise oversize_row(self._row_bytes, self._max_row_bytes)
            try:
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                what = f"is not UTF-8 text (line {number}, byte {error.start + 1})"
                fix = "save it as UTF-8"
                raise SampleError(what, kind="bad_file", where=self._label, fix=fix) from None

    def _error(self, what: str, *, fix: str, number: int = 0) -> SampleError:
        where = f"{self._label}:{number}" if number else self._label
        return SampleError(what, kind="bad_file", where=where, fix=fix)


def _separator(first: str, *, label: str) -> str:
    """Return what separates the names of a `.csv` file's first line; quoted names are passed."""
    outside = "".join(first.split('"')[::2])
    found = [separator for separator in SEPARATORS if separator in outside]
    if len(found) > 1:
        words = " and ".join(SEPARATORS[separator] for separator in found)
        what = f"the first line may be separated by {words}"
        fix = 'put names that hold one of them in quotes, "..."'
        raise SampleError(what, kind="bad_file", where=label, fix=fix)
    return found[0] if found else ","


def _chained(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
