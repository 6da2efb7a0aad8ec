"""Rows in Arrow files, mapped from disk: millions of rows cost a process next to nothing.

In: an Arrow file, or one in memory. Out: the tables of JSON text, of columns, and of a shard's
members.
"""

import json
import mmap
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from smolvlm.config.problems import shown_text
from smolvlm.datasets.rows.readers.class_labels import features_in, namers
from smolvlm.datasets.rows.readers.json import (
    not_json,
    read_json,
    too_deep,
    too_long_a_number,
)
from smolvlm.datasets.rows.readers.tar import read_tar_row
from smolvlm.datasets.rows.readers.tar_media import ShardReading, with_media
from smolvlm.datasets.rows.row_table import RowTable, no_column, value_or_error
from smolvlm.errors import SampleError

READS_UNTIL_RELEASE = 128
"""Values read between two releases of a mapped file's pages: the system keeps them cached, the
process lets them go."""


_NO_VALUE = (pa.ArrowException, ValueError)
"""What Arrow raises where a damaged file holds no value, such as text that is no UTF-8."""


class ArrowRows:
    """The record batches of an Arrow file: mapped from disk, or in memory."""

    def __init__(self, source: Path | pa.Buffer) -> None:
        self._source = source
        self._open()

    def _open(self) -> None:
        self._mapped = _map(self._source) if isinstance(self._source, Path) else None
        self._reads = 0
        reader = pa.ipc.open_file(
            pa.BufferReader(self._source if self._mapped is None else pa.py_buffer(self._mapped))
        )
        self.names = reader.schema.names
        self.metadata: Mapping[bytes, bytes] | None = reader.schema.metadata
        self._batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        self._ends = list(accumulate(batch.num_rows for batch in self._batches))

    def __getstate__(self) -> Path | bytes:
        return self._source if isinstance(self._source, Path) else self._source.to_pybytes()

    def __setstate__(self, state: Path | bytes) -> None:
        self._source = state if isinstance(state, Path) else pa.py_buffer(state)
        self._open()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def value(self, column: int, index: int) -> Any:
        """Return one value as Python objects.

        Raises:
            SampleError: Arrow makes nothing of it.
        """
        self._reads += 1
        if (
            self._mapped is not None
            and self._reads % READS_UNTIL_RELEASE == 0
            and hasattr(mmap, "MADV_DONTNEED")
        ):
            self._mapped.madvise(mmap.MADV_DONTNEED)
        batch = bisect_right(self._ends, index)
        begin = self._ends[batch - 1] if batch else 0
        return self._made(column, self._batches[batch].column(column)[index - begin])

    def values(self, column: int) -> Iterator[Any]:
        """Yield one column's values; of the others nothing is read.

        A value that Arrow makes nothing of is given as its `SampleError`.
        """
        for batch in self._batches:
            cells = batch.column(column)
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
        except RecursionError:
            raise too_deep() from None

    def where(self, index: int) -> str:
        return f"{self.label}:{self._rows.value(1, index)}"


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
            yield value_or_error(lambda value=value: self._named(column, value))

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
        fields, members = read_tar_row(self._path, row, not_read=reading.not_read)
        return with_media(fields, members, media_root=reading.media_root, columns=reading.columns)


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
