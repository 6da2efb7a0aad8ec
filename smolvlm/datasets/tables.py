"""Files of rows: a JSON list, JSON lines or Parquet in, a table with a length and rows by number out.

A table holds the file's text (or Arrow columns) and where each row begins, and turns a row into Python values only when
it is asked for. So a hundred thousand rows cost the memory of their file, and leave no objects for a garbage collector
or a forked data-loader worker to touch. The whole file is in memory; that is the limit of this way.
"""

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from smolvlm.datasets.sources import SourceSpec
from smolvlm.errors import SampleError

if TYPE_CHECKING:
    import pyarrow

_DECODER = json.JSONDecoder()
_JSON_SPACE = re.compile(r"[ \t\n\r]*")


class RowTable(ABC):
    """The rows of one file, numbered from 0 here and from 1 in every message."""

    def __init__(self, *, label: str) -> None:
        self.label = label

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """Return row `index` as JSON-like values; whether it is an object is for the reader of rows to say.

        Raises:
            SampleError: the row's text is not JSON.
        """

    def where(self, index: int) -> str:
        """Return the `file:row` of row `index`."""
        return f"{self.label}:{index + 1}"


class TextTable(RowTable):
    """Rows of JSON text, by the place in the file's text where each begins and ends."""

    def __init__(
        self, text: str, spans: Sequence[tuple[int, int]], *, row_numbers: Sequence[int] | None, label: str
    ) -> None:
        super().__init__(label=label)
        self._text = text
        self._spans = np.array(spans, dtype=np.int64).reshape(-1, 2)
        self._row_numbers = None if row_numbers is None else np.array(row_numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._spans)

    def __getitem__(self, index: int) -> Any:
        start, end = self._spans[index].tolist()
        try:
            return json.loads(self._text[start:end])
        except json.JSONDecodeError as error:
            raise _not_json(error, where=self.where(index)) from None
        except RecursionError:
            raise SampleError("nested too deeply to read", where=self.where(index), fix="mend the row") from None

    def where(self, index: int) -> str:
        number = index + 1 if self._row_numbers is None else int(self._row_numbers[index])
        return f"{self.label}:{number}"


class ArrowTable(RowTable):
    """Rows of Arrow columns."""

    def __init__(self, table: "pyarrow.Table", *, label: str) -> None:
        super().__init__(label=label)
        self._table = table.combine_chunks() if table.nbytes < 2**30 else table

    def __len__(self) -> int:
        return self._table.num_rows

    def __getitem__(self, index: int) -> Any:
        return {
            name: column[index].as_py()
            for name, column in zip(self._table.column_names, self._table.columns, strict=True)
        }


def read_rows(spec: SourceSpec) -> RowTable:
    """Return the rows of a source's file, all of them: sampling is applied later.

    Raises:
        SampleError: the file cannot be read, is not of its format, or has no rows.
    """
    table = read_parquet(spec) if spec.format == "parquet" else read_json(spec)
    if len(table) == 0:
        raise SampleError("the file has no rows", where=spec.label, fix="take the source out of the mixture")
    return table


def read_json(spec: SourceSpec) -> RowTable:
    """Return the rows of a JSON list or of JSON lines."""
    try:
        text = spec.path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SampleError(f"cannot be read: {error.strerror}", where=spec.label, fix="check the path") from None
    except UnicodeDecodeError as error:
        raise SampleError(f"is not UTF-8 text (byte {error.start})", where=spec.label, fix="save it as UTF-8") from None
    if spec.format == "jsonl":
        spans, line_numbers = line_spans(text)
        return TextTable(text, spans, row_numbers=line_numbers, label=spec.label)
    return TextTable(text, list_spans(text, label=spec.label), row_numbers=None, label=spec.label)


def line_spans(text: str) -> tuple[list[tuple[int, int]], list[int]]:
    """Return (start, end) of each line with something on it, and the lines' numbers, from 1; blank lines are no rows.

    A message's row number is the line's, so that an editor finds it.
    """
    spans: list[tuple[int, int]] = []
    numbers: list[int] = []
    start = 0
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON text may hold U+2028
        if line.strip():
            spans.append((start, start + len(line)))
            numbers.append(number)
        start += len(line) + 1
    return spans, numbers


def list_spans(text: str, *, label: str) -> list[tuple[int, int]]:
    """Return (start, end) of each element of the JSON list that `text` is.

    Raises:
        SampleError: not a list, or not JSON; names the row where reading stopped.
    """
    position = _after_space(text, 0)
    if not text.startswith("[", position):
        lines_fix = "one object a line is JSON lines: give the file the ending .jsonl; else write a list of rows, [...]"
        raise SampleError("the file is not a JSON list", where=label, fix=lines_fix)
    position = _after_space(text, position + 1)
    spans: list[tuple[int, int]] = []
    while not (text.startswith("]", position) and not spans):
        where = f"{label}:{len(spans) + 1}"
        try:
            _, end = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise _not_json(error, where=where) from None
        except RecursionError:
            raise SampleError("nested too deeply to read", where=where, fix="mend the row") from None
        spans.append((position, end))
        position = _after_space(text, end)
        if text.startswith("]", position):
            break
        if not text.startswith(",", position):
            what = "the list ends without its closing bracket" if position >= len(text) else "no comma after the row"
            raise SampleError(what, where=where, fix="mend the file here; it may have been cut short")
        position = _after_space(text, position + 1)
    if _after_space(text, position + 1) != len(text):
        raise SampleError("text after the list's end", where=label, fix="keep one list in a file")
    return spans


def read_parquet(spec: SourceSpec) -> RowTable:
    """Return the rows of a Parquet file, read whole."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(spec.path) as file:
            return ArrowTable(file.read(), label=spec.label)
    except OSError as error:
        raise SampleError(f"cannot be read: {error}", where=spec.label, fix="check the path") from None
    except (pyarrow.ArrowException, ValueError) as error:
        raise SampleError(f"not a Parquet file: {error}", where=spec.label, fix="write the file anew") from None


def _after_space(text: str, position: int) -> int:
    match = _JSON_SPACE.match(text, position)
    assert match is not None, "the pattern matches the empty text"
    return match.end()


def _not_json(error: json.JSONDecodeError, *, where: str) -> SampleError:
    what = f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})"
    return SampleError(what, where=where, fix="mend the row; a file cut short ends like this")
