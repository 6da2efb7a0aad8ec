"""Rows in Arrow files, mapped from disk: millions of rows cost a process next to nothing.

In: an Arrow file, or one in memory. Out: the tables of JSON text, of columns, and of a shard's
members.
"""

import json
import mmap
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from smolvlm.config.problems import shown_text
from smolvlm.datasets.rows.readers.checked_arrow import CheckedArrow, DamagedFileError, Metadata
from smolvlm.datasets.rows.readers.class_labels import features_in, namers
from smolvlm.datasets.rows.readers.json import (
    not_json,
    read_json,
    too_long_a_number,
)
from smolvlm.datasets.rows.readers.streams import MAX_ROW_BYTES, oversize_row
from smolvlm.datasets.rows.readers.tar import read_tar_row
from smolvlm.datasets.rows.readers.tar_media import ShardReading, with_media
from smolvlm.datasets.rows.row_table import RowTable, no_column, value_or_error
from smolvlm.errors import ConfigError, SampleError

OVERSIZE = b"oversize_row"
"""Key of a record batch's own metadata: the batch is one row that was passed over, of so many
bytes."""
READS_UNTIL_RELEASE = 128
"""Values read between two releases of a mapped file's pages: the system keeps them cached, the
process lets them go."""


_NO_VALUE = (pa.ArrowException, ValueError)
"""What Arrow raises where a damaged file holds no value, such as text that is no UTF-8."""


class ArrowRows:
    """The record batches of an Arrow file: mapped from disk, or in memory."""

    def __init__(self, source: Path | pa.Buffer, *, max_row_bytes: int = MAX_ROW_BYTES) -> None:
        """
        Args:
            source: a file that was written here, or what is in memory.
            max_row_bytes: what a row that was passed over had more of; for its error.

        Raises:
            DamagedFileError, OSError, ValueError: it is no file that was written here.
        """
        self._source = source
        self._max_row_bytes = max_row_bytes
        self._open()

    def _open(self) -> None:
        self._file = CheckedArrow(self._source)
        self._reads = 0
        self.names = self._file.schema.names
        self.metadata: Mapping[bytes, bytes] | None = self._file.schema.metadata
        self._ends = np.cumsum(self._file.batch_rows()).tolist()

    def __getstate__(self) -> tuple[Path | bytes, int]:
        source = self._source if isinstance(self._source, Path) else self._source.to_pybytes()
        return source, self._max_row_bytes

    def __setstate__(self, state: tuple[Path | bytes, int]) -> None:
        source, self._max_row_bytes = state
        self._source = source if isinstance(source, Path) else pa.py_buffer(source)
        try:
            self._open()
        except DamagedFileError:
            raise self._damaged() from None

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def value(self, column: int, index: int) -> Any:
        """Return one value as Python objects.

        Raises:
            ConfigError: the file was damaged since it was opened; it is deleted.
            SampleError: the row was passed over, for it is too large, or Arrow makes nothing of it.
        """
        self._reads += 1
        mapped = self._file.mapped
        if mapped is not None and self._reads % READS_UNTIL_RELEASE == 0:
            _release(mapped)
        batch = bisect_right(self._ends, index)
        self._check(batch)
        begin = self._ends[batch - 1] if batch else 0
        return self._made(column, self._batch(batch).column(column)[index - begin])

    def values(self, column: int) -> Iterator[Any]:
        """Yield one column's values; of the others nothing is read. Raises as `value`, but for
        values that cannot be used: their `SampleError` is given in their place."""
        for number in range(len(self._file)):
            cells = self._batch(number).column(column)
            if (error := value_or_error(lambda number=number: self._check(number))) is not None:
                yield error
                continue
            try:
                values = cells.to_pylist()
            except _NO_VALUE:
                values = [
                    value_or_error(lambda cell=cell: self._made(column, cell)) for cell in cells
                ]
            yield from values

    def _made(self, column: int, cell: Any) -> Any:
        try:
            return cell.as_py()
        except _NO_VALUE as error:
            what = f"column `{shown_text(self.names[column])}`: {shown_text(str(error))}"
            raise SampleError(what, fix="write the file anew") from None

    def number(self, column: int, index: int) -> int:
        """Return one value of a column that says which row it is, however large the row is."""
        batch = bisect_right(self._ends, index)
        begin = self._ends[batch - 1] if batch else 0
        return self._batch(batch).column(column)[index - begin].as_py()

    def check(self) -> None:
        """Read all of the file, and compare it with what was written.

        Raises:
            DamagedFileError: it is something else.
        """
        for number in range(len(self._file)):
            self._file.batch(number)
            if self._file.mapped is not None:
                _release(self._file.mapped)

    def _batch(self, number: int) -> pa.RecordBatch:
        return self._read(number)[0]

    def _check(self, number: int) -> None:
        _, metadata = self._read(number)
        if OVERSIZE in metadata:
            raise oversize_row(int(metadata[OVERSIZE]), self._max_row_bytes)

    def _read(self, number: int) -> tuple[pa.RecordBatch, Metadata]:
        try:
            return self._file.batch(number)
        except DamagedFileError:
            raise self._damaged() from None

    def _damaged(self) -> ConfigError:
        """Delete the file, so that the next start makes it anew, and return what is said."""
        assert isinstance(self._source, Path), "what is in memory has no digests"
        what = "this copy of rows is not what was written: the disk, or another program, changed it"
        with suppress(OSError):
            self._source.unlink()
            return ConfigError(
                what,
                where=str(self._source),
                fix="give the same command again: the copy was deleted, and is made anew",
            )
        fix = "delete it and give the same command again: it is made anew"
        return ConfigError(what, where=str(self._source), fix=fix)


def _release(mapped: mmap.mmap) -> None:
    """Let the process's pages of a file go; the system keeps them cached."""
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


class JsonTable(RowTable):
    """Rows of JSON text."""

    def __init__(self, rows: ArrowRows, *, label: str) -> None:
        super().__init__(label=label)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            return read_json(self._rows.value(0, index))
        except json.JSONDecodeError as error:
            raise not_json(error.msg, line=error.lineno, column=error.colno) from None
        except UnicodeDecodeError as error:
            what = f"is not UTF-8 text (byte {error.start} of the row)"
            raise SampleError(what, fix="save the file as UTF-8") from None
        except ValueError:
            raise too_long_a_number() from None

    def where(self, index: int) -> str:
        return f"{self.label}:{self._rows.number(1, index)}"


class ColumnTable(RowTable):
    """Rows of Arrow columns; class labels of Hugging Face are their names."""

    def __init__(self, rows: ArrowRows, *, label: str) -> None:
        super().__init__(label=label)
        self._rows = rows
        self._features = features_in(rows.metadata)
        self._namers = namers(self._features)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_namers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._namers = namers(self._features)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> object:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {
            name: self._named(name, self._rows.value(column, index))
            for column, name in enumerate(self._rows.names)
        }

    def values(self, column: str) -> Iterator[Any]:
        if column not in self._rows.names:
            raise no_column(column, self._rows.names, where=self.label)
        for value in self._rows.values(self._rows.names.index(column)):
            is_error = isinstance(value, SampleError)
            yield value if is_error else value_or_error(lambda v=value: self._named(column, v))

    def _named(self, column: str, value: Any) -> Any:
        namer = self._namers.get(column)
        return value if namer is None or isinstance(value, SampleError) else namer(value)


class CsvTable(ColumnTable):
    """Rows of a CSV file: cells of text."""

    has_types = False


class TarTable(RowTable):
    """Rows of a WebDataset shard."""

    def __init__(
        self,
        rows: ArrowRows,
        path: Path,
        *,
        label: str,
        reading: ShardReading,
    ) -> None:
        """
        Args:
            rows: the shard's index.
            path: the shard.
            label: what messages call it.
            reading: what its source says of members.
        """
        super().__init__(label=label)
        self._index = JsonTable(rows, label=label)
        self._path = path
        self._reading = reading

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> object:
        row, reading = self._index[index], self._reading
        fields, members = read_tar_row(
            self._path, row, not_read=reading.not_read, max_text_bytes=reading.max_row_bytes
        )
        return with_media(fields, members, media_root=reading.media_root, columns=reading.columns)
