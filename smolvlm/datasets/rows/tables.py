"""Files of rows in, tables out: a length, and rows by number, read when they are asked for.

Every file becomes one Arrow file, mapped into memory: the text of a JSON row, or the columns of a Parquet row, is read
from disk when the row is, and a table of millions of rows costs a process next to nothing. The conversion is done once:
the Arrow file lies in the cache folder (`cache_dir`, folder `rows`), named by the source's path, size and time of
change, and may be deleted at any time. Small files are converted in memory.
"""

import json
import mmap
import os
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa

from smolvlm.datasets.rows.readers.json import json_lines, json_list, not_json, too_deep, too_long_a_number
from smolvlm.datasets.rows.readers.tar import read_tar_row, tar_index
from smolvlm.datasets.rows.sources import RowFormat, SourceSpec
from smolvlm.errors import SampleError
from smolvlm.home import cache_dir

IN_MEMORY_BYTES = 8 << 20
"""Files up to this size are not cached."""
BATCH_BYTES = 8 << 20
READS_UNTIL_RELEASE = 128
"""Values read between two releases of a mapped file's pages: the system keeps them cached, the process lets them go."""
CONVERSION = 1
"""Raise it when the Arrow files of an earlier version must not be read."""
_JSON_SCHEMA = pa.schema([("json", pa.large_binary()), ("number", pa.int64())])


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

    @property
    def identity(self) -> str:
        """What tells these rows from others; empty where the files' own identity does."""
        return ""


class ArrowRows:
    """The record batches of an Arrow file: mapped from disk, or in memory."""

    def __init__(self, source: Path | pa.Buffer) -> None:
        self._source = source
        self._open()

    def _open(self) -> None:
        self._mapped = _map(self._source) if isinstance(self._source, Path) else None
        self._reads = 0
        reader = pa.ipc.open_file(pa.BufferReader(self._source if self._mapped is None else pa.py_buffer(self._mapped)))
        self.names = reader.schema.names
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
        """Return one value as Python objects."""
        self._reads += 1
        if self._mapped is not None and self._reads % READS_UNTIL_RELEASE == 0 and hasattr(mmap, "MADV_DONTNEED"):
            self._mapped.madvise(mmap.MADV_DONTNEED)
        batch = bisect_right(self._ends, index)
        begin = self._ends[batch - 1] if batch else 0
        return self._batches[batch].column(column)[index - begin].as_py()


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
            return json.loads(self._rows.value(0, index))
        except json.JSONDecodeError as error:
            raise not_json(error.msg, line=error.lineno, column=error.colno, where=self.where(index)) from None
        except UnicodeDecodeError as error:
            what = f"is not UTF-8 text (byte {error.start} of the row)"
            raise SampleError(what, where=self.where(index), fix="save the file as UTF-8") from None
        except ValueError:
            raise too_long_a_number(self.where(index)) from None
        except RecursionError:
            raise too_deep(self.where(index)) from None

    def where(self, index: int) -> str:
        return f"{self.label}:{self._rows.value(1, index)}"


class ColumnTable(RowTable):
    """Rows of Arrow columns."""

    def __init__(self, rows: ArrowRows, *, label: str) -> None:
        super().__init__(label=label)
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {name: self._rows.value(column, index) for column, name in enumerate(self._rows.names)}


class TarTable(RowTable):
    """Rows of a WebDataset shard."""

    def __init__(self, rows: ArrowRows, path: Path, *, label: str) -> None:
        super().__init__(label=label)
        self._index = JsonTable(rows, label=label)
        self._path = path

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> Any:
        return read_tar_row(self._path, self._index[index], where=self.where(index))


class SavedTable(RowTable):
    """Rows of a Hugging Face data set, in memory-mapped Arrow files already; media come as bytes or paths."""

    def __init__(self, dataset: Any, *, label: str) -> None:
        super().__init__(label=label)
        self.identity_of_rows = str(dataset._fingerprint)
        self._dataset = dataset.with_format("arrow")

    @property
    def identity(self) -> str:
        return self.identity_of_rows

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._dataset[index].to_pylist()[0]


class ChainTable(RowTable):
    """The rows of several files, one after the other; each keeps its own name and numbers in messages."""

    def __init__(self, tables: Sequence[RowTable], *, label: str) -> None:
        super().__init__(label=label)
        self._tables = tuple(tables)
        self._ends = list(accumulate(map(len, tables)))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Any:
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


def open_table(spec: SourceSpec) -> RowTable:
    """Return the rows of a source, all of them: sampling is applied later.

    Raises:
        SampleError: a file cannot be read, is not of its format, or has no rows.
    """
    if spec.format in ("saved", "hub"):
        return _open_saved(spec)
    tables = [read_rows(path, spec.format, label=_label(spec, path)) for path in spec.files]
    return tables[0] if len(tables) == 1 else ChainTable(tables, label=spec.label)


def _label(spec: SourceSpec, path: Path) -> str:
    return spec.label if len(spec.files) == 1 else str(Path(spec.label).parent / path.name)


def _open_saved(spec: SourceSpec) -> RowTable:
    """Open a folder that `save_to_disk` wrote, or a data set of the hub (downloaded once by `datasets`)."""
    import datasets

    try:
        found: Any = (
            datasets.load_dataset(spec.label, split=spec.split or "train")
            if spec.format == "hub"
            else datasets.load_from_disk(str(spec.path))
        )
    except (OSError, ValueError, RuntimeError) as error:
        fix = "check the name, the split and the network" if spec.format == "hub" else "save the data set anew"
        raise SampleError(f"cannot be opened: {error}", where=spec.label, fix=fix) from None
    if isinstance(found, datasets.DatasetDict):
        split = spec.split or ("train" if "train" in found else next(iter(found), ""))
        if split not in found:
            raise SampleError(
                f"no split {split!r}", where=spec.label, fix=f"set `split` to one of {', '.join(map(str, found))}"
            )
        found = found[split]
    if not len(found):
        raise SampleError("the data set has no rows", where=spec.label, fix="take the source out of the mixture")
    return SavedTable(found, label=spec.label)


def read_rows(path: Path, row_format: RowFormat, *, label: str) -> RowTable:
    """Return the rows of one file.

    Args:
        path: the file.
        row_format: what is in it.
        label: what messages call it.

    Raises:
        SampleError: the file cannot be read, is not of its format, or has no rows.
    """
    try:
        rows = _arrow_rows(path, row_format, label=label)
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise SampleError(what, where=label, fix="check the path") from None
    table: RowTable
    if row_format == "tar":
        table = TarTable(rows, path, label=label)
    else:
        table = (ColumnTable if row_format == "parquet" else JsonTable)(rows, label=label)
    if len(table) == 0:
        raise SampleError("the file has no rows", where=label, fix="take the source out of the mixture")
    return table


def _arrow_rows(path: Path, row_format: RowFormat, *, label: str) -> ArrowRows:
    if path.stat().st_size <= IN_MEMORY_BYTES:  # a shard's index is small, but reading its headers takes long
        sink = pa.BufferOutputStream()
        _convert(path, row_format, sink, label=label)
        return ArrowRows(sink.getvalue())
    target = cache_dir() / "rows" / f"{path.stem[:40]}-{file_identity(path)}-{row_format}.arrow"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            with pa.OSFile(str(partial), "wb") as sink:
                _convert(path, row_format, sink, label=label)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    return ArrowRows(target)


def file_identity(path: Path) -> str:
    """Return a digest of a file's path, size and time of change."""
    state = path.stat()
    parts = f"{CONVERSION}\0{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
    return blake2b(parts.encode(), digest_size=12).hexdigest()


def _convert(path: Path, row_format: RowFormat, sink: Any, *, label: str) -> None:
    """Write a file's rows to an Arrow file, a few megabytes at a time."""
    if row_format == "parquet":
        _convert_parquet(path, sink, label=label)
        return
    with path.open("rb") as stream, pa.ipc.new_file(sink, _JSON_SCHEMA) as writer:
        match row_format:
            case "jsonl":
                found = json_lines(stream)
            case "tar":
                found = tar_index(path, label=label)
            case _:
                found = json_list(stream, label=label)
        for texts, numbers in _batched(found):
            writer.write_batch(pa.record_batch([pa.array(texts, pa.large_binary()), pa.array(numbers)], _JSON_SCHEMA))


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _batched(rows: Iterator[tuple[int, bytes]]) -> Iterator[tuple[Sequence[bytes], Sequence[int]]]:
    texts: list[bytes] = []
    numbers: list[int] = []
    size = 0
    for number, text in rows:
        texts.append(text)
        numbers.append(number)
        size += len(text)
        if size >= BATCH_BYTES:
            yield texts, numbers
            texts, numbers, size = [], [], 0
    if texts:
        yield texts, numbers


def _convert_parquet(path: Path, sink: Any, *, label: str) -> None:
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file, pa.ipc.new_file(sink, file.schema_arrow) as writer:
            rows_per_batch = max(1, file.metadata.num_rows * BATCH_BYTES // max(path.stat().st_size, 1))
            for batch in file.iter_batches(batch_size=min(rows_per_batch, 65536)):
                writer.write_batch(batch)
    except (pa.ArrowException, ValueError) as error:
        raise SampleError(f"not a Parquet file: {error}", where=label, fix="write the file anew") from None
