"""Files of rows turned into Arrow files, once.

In: a JSON list, JSON lines, CSV, a Parquet file or a shard. Out: `ArrowRows`. The Arrow file lies
in the cache folder (`cache_dir`, folder `rows`), named by the source's path, size and time of
change, and may be deleted at any time. One that is damaged is made anew: a file of up to
`CHECKED_BYTES` is read whole when it is opened; of a larger one each batch is compared with its
digest when it is read first (`checked_arrow.py`), which ends the command. Small files are converted
in memory, and all of them where the cache cannot be written.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from smolvlm.config.problems import shown_text
from smolvlm.datasets.rows.readers.arrow import OVERSIZE, ArrowRows
from smolvlm.datasets.rows.readers.checked_arrow import BatchSink, DamagedFileError, WriteBatch
from smolvlm.datasets.rows.readers.csv import CsvFile
from smolvlm.datasets.rows.readers.json import json_lines, json_list
from smolvlm.datasets.rows.readers.parquet import ParquetRows
from smolvlm.datasets.rows.readers.streams import (
    MAX_ROW_BYTES,
    OversizeRow,
    is_longer_than,
    open_rows,
)
from smolvlm.datasets.rows.readers.tar import tar_index
from smolvlm.datasets.rows.sources import RowFormat
from smolvlm.disk.atomic_files import remove_leftovers_in, replacing
from smolvlm.disk.disk_space import NO_SPACE, is_full
from smolvlm.errors import SampleError, located
from smolvlm.home import cache_dir
from smolvlm.notices import notice

IN_MEMORY_BYTES = 8 << 20
"""Files up to this size, decompressed, are not cached."""
BATCH_BYTES = 8 << 20
MAX_BATCH_ROWS = 1 << 17
CHECKED_BYTES = 2 << 30
"""Up to this size a start reads all of an Arrow file: 0.3 s of CPU, more where it is not cached."""
ALONE = -1
"""The size of a row that is a batch of its own."""
CONVERSION = 6
"""Raise it when the Arrow files of an earlier version must not be read."""
Row = TypeVar("Row")
_JSON_SCHEMA = pa.schema([("json", pa.large_binary()), ("number", pa.int64())])


def arrow_rows(
    path: Path, row_format: RowFormat, *, label: str, max_row_bytes: int = MAX_ROW_BYTES
) -> ArrowRows:
    """Return the rows of a file, converted where that was not done yet.

    Args:
        path: the file.
        row_format: what is in it.
        label: what messages call it.
        max_row_bytes: of one row; one of more is passed over, and an error when it is asked for.

    Raises:
        OSError: the file cannot be read.
        SampleError: it is not of its format.
    """
    # A shard's index is small, but reading its headers takes long.
    if not is_longer_than(path, IN_MEMORY_BYTES, label=label):
        return _in_memory(path, row_format, label=label, max_row_bytes=max_row_bytes)
    limit = "" if max_row_bytes == MAX_ROW_BYTES else f"-{max_row_bytes}"
    name = f"{path.stem[:40]}-{file_identity(path)}{limit}-{row_format}.arrow"
    target = cache_dir() / "rows" / name
    if target.is_file():
        try:
            return _opened(target, max_row_bytes)
        except (pa.ArrowException, ValueError, OSError, DamagedFileError):
            notice(f"{target} is damaged and is made anew")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers_in(target.parent)
        with replacing(target, is_synced=False) as partial:
            with pa.OSFile(str(partial), "wb") as stream:
                sink = BatchSink(stream)
                _convert(path, row_format, sink, label=label, max_row_bytes=max_row_bytes)
            sink.seal(partial)
    except OSError as error:  # of the source too: it comes again
        rows = _in_memory(path, row_format, label=label, max_row_bytes=max_row_bytes)
        why = NO_SPACE if is_full(target) else error.strerror or str(error)
        notice(f"rows are not kept in {target.parent} ({why}), but in memory, and read each time")
        return rows
    return ArrowRows(target, max_row_bytes=max_row_bytes)


def _opened(target: Path, max_row_bytes: int) -> ArrowRows:
    """Open an Arrow file that is there, and read all of it where that takes no time."""
    rows = ArrowRows(target, max_row_bytes=max_row_bytes)
    if target.stat().st_size <= CHECKED_BYTES:
        rows.check()
    return rows


def _in_memory(path: Path, row_format: RowFormat, *, label: str, max_row_bytes: int) -> ArrowRows:
    stream = pa.BufferOutputStream()
    _convert(path, row_format, BatchSink(stream), label=label, max_row_bytes=max_row_bytes)
    return ArrowRows(stream.getvalue(), max_row_bytes=max_row_bytes)


def file_identity(path: Path) -> str:
    """Return a digest of a file's path, size and time of change."""
    state = path.stat()
    parts = f"{CONVERSION}\0{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
    return blake2b(parts.encode(errors="surrogatepass"), digest_size=12).hexdigest()


def _convert(
    path: Path, row_format: RowFormat, sink: BatchSink, *, label: str, max_row_bytes: int
) -> None:
    """Write a file's rows to an Arrow file, a few megabytes at a time."""
    with located(label):
        match row_format:
            case "parquet":
                _convert_parquet(path, sink, label=label, max_row_bytes=max_row_bytes)
            case "tar":
                _write_json(tar_index(path, label=label), sink)
            case "csv" | "tsv":
                with open_rows(path, label=label) as stream:
                    is_tsv = row_format == "tsv"
                    file = CsvFile(stream, is_tsv=is_tsv, label=label, max_row_bytes=max_row_bytes)
                    _convert_csv(file, sink)
            case _:
                with open_rows(path, label=label) as stream:
                    rows = (
                        json_lines(stream, max_row_bytes=max_row_bytes)
                        if row_format == "jsonl"
                        else json_list(stream, label=label, max_row_bytes=max_row_bytes)
                    )
                    _write_json(rows, sink)


def _write_json(rows: Iterator[tuple[int, bytes | OversizeRow]], sink: BatchSink) -> None:
    with sink.writing(_JSON_SCHEMA) as write:
        for batch in _batched(rows, size_of=_text_bytes):
            numbers, texts = zip(*batch, strict=True)
            oversize = texts[0] if isinstance(texts[0], OversizeRow) else None
            shown = [b""] if oversize is not None else texts
            arrays = [pa.array(shown, pa.large_binary()), pa.array(numbers, pa.int64())]
            _write(write, pa.record_batch(arrays, _JSON_SCHEMA), oversize)


def _text_bytes(row: tuple[int, bytes | OversizeRow]) -> int:
    """Return a text's length; one that was passed over is a batch of its own."""
    _, text = row
    return ALONE if isinstance(text, OversizeRow) else len(text)


def _write(write: WriteBatch, batch: pa.RecordBatch, oversize: int | None = None) -> None:
    """Write a batch; one of a row that is too large says how many bytes that has."""
    write(batch, None if oversize is None else {OVERSIZE: str(int(oversize)).encode()})


def _convert_csv(file: CsvFile, sink: BatchSink) -> None:
    schema = pa.schema([(name, pa.large_string()) for name in file.columns])
    with sink.writing(schema) as write:
        for batch in _batched(file.rows(), size_of=_cell_bytes):
            columns = zip(*batch, strict=True)
            arrays = [pa.array(cells, pa.large_string()) for cells in columns]
            write(pa.record_batch(arrays, schema))


def _cell_bytes(cells: Sequence[str | None]) -> int:
    return sum(len(cell or "") for cell in cells)


def _convert_parquet(path: Path, sink: BatchSink, *, label: str, max_row_bytes: int) -> None:
    try:
        with (
            ParquetRows(path, max_row_bytes=max_row_bytes, label=label) as file,
            sink.writing(file.schema) as write,
        ):
            for batch in file.batches():
                if isinstance(batch, int):
                    nothing = [pa.nulls(1, field.type) for field in file.schema]
                    _write(write, pa.record_batch(nothing, file.schema), batch)
                else:
                    write(batch)
    except (pa.ArrowException, ValueError) as error:
        what = f"not a Parquet file: {shown_text(str(error))}"
        raise SampleError(what, kind="bad_file", where=label, fix="write the file anew") from None
    except OSError as error:
        if error.errno is not None:
            raise
        what = f"the Parquet file is damaged: {shown_text(str(error))}"
        raise SampleError(what, kind="bad_file", where=label, fix="copy it again") from None


def _batched(rows: Iterator[Row], *, size_of: Callable[[Row], int]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        added = size_of(row)
        if added == ALONE and batch:
            yield batch
            batch, size = [], 0
        batch.append(row)
        size = BATCH_BYTES if added == ALONE else size + added
        if size >= BATCH_BYTES or len(batch) >= MAX_BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
