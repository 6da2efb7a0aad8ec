"""Files of rows turned into Arrow files, once.

In: a JSON list, JSON lines, CSV, a Parquet file or a shard. Out: `ArrowRows`. The Arrow file lies
in the cache folder (`cache_dir`, folder `rows`), named by the source's path, size and time of
change, and may be deleted at any time; one that is damaged is made anew. Small files are converted
in memory, and all of them where the cache cannot be written.
"""

from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from smolvlm.config.problems import shown_text
from smolvlm.datasets.rows.readers.arrow import ArrowRows
from smolvlm.datasets.rows.readers.csv import CsvFile
from smolvlm.datasets.rows.readers.json import json_lines, json_list
from smolvlm.datasets.rows.readers.plain_types import plain_batch, plain_schema
from smolvlm.datasets.rows.readers.streams import is_longer_than, open_rows
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
CONVERSION = 4
"""Raise it when the Arrow files of an earlier version must not be read."""
Row = TypeVar("Row")
_JSON_SCHEMA = pa.schema([("json", pa.large_binary()), ("number", pa.int64())])


def arrow_rows(path: Path, row_format: RowFormat, *, label: str) -> ArrowRows:
    """Return the rows of a file, converted where that was not done yet.

    Raises:
        OSError: the file cannot be read.
        SampleError: it is not of its format.
    """
    # A shard's index is small, but reading its headers takes long.
    if not is_longer_than(path, IN_MEMORY_BYTES, label=label):
        return _in_memory(path, row_format, label=label)
    target = cache_dir() / "rows" / f"{path.stem[:40]}-{file_identity(path)}-{row_format}.arrow"
    if target.is_file():
        try:
            return ArrowRows(target)
        except (pa.ArrowException, ValueError, OSError):  # cut off, empty, or of something else
            notice(f"{target} is damaged and is made anew")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers_in(target.parent)
        with (
            replacing(target, is_synced=False) as partial,
            pa.OSFile(str(partial), "wb") as sink,
        ):
            _convert(path, row_format, sink, label=label)
    except OSError as error:  # of the source too: it comes again
        rows = _in_memory(path, row_format, label=label)
        why = NO_SPACE if is_full(target) else error.strerror or str(error)
        notice(f"rows are not kept in {target.parent} ({why}), but in memory, and read each time")
        return rows
    return ArrowRows(target)


def _in_memory(path: Path, row_format: RowFormat, *, label: str) -> ArrowRows:
    sink = pa.BufferOutputStream()
    _convert(path, row_format, sink, label=label)
    return ArrowRows(sink.getvalue())


def file_identity(path: Path) -> str:
    """Return a digest of a file's path, size and time of change."""
    state = path.stat()
    parts = f"{CONVERSION}\0{path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}"
    return blake2b(parts.encode(errors="surrogatepass"), digest_size=12).hexdigest()


def _convert(path: Path, row_format: RowFormat, sink: pa.NativeFile, *, label: str) -> None:
    """Write a file's rows to an Arrow file, a few megabytes at a time."""
    with located(label):
        match row_format:
            case "parquet":
                _convert_parquet(path, sink, label=label)
            case "tar":
                _write_json(tar_index(path, label=label), sink)
            case "csv" | "tsv":
                _convert_csv(path, sink, is_tsv=row_format == "tsv", label=label)
            case _:
                with open_rows(path, label=label) as stream:
                    is_lines = row_format == "jsonl"
                    _write_json(
                        json_lines(stream) if is_lines else json_list(stream, label=label), sink
                    )


def _write_json(rows: Iterator[tuple[int, bytes]], sink: pa.NativeFile) -> None:
    with pa.ipc.new_file(sink, _JSON_SCHEMA) as writer:
        for batch in _batched(rows, size_of=lambda row: len(row[1])):
            numbers, texts = zip(*batch, strict=True)
            arrays = [pa.array(texts, pa.large_binary()), pa.array(numbers, pa.int64())]
            writer.write_batch(pa.record_batch(arrays, _JSON_SCHEMA))


def _convert_csv(path: Path, sink: pa.NativeFile, *, is_tsv: bool, label: str) -> None:
    with open_rows(path, label=label) as stream:
        file = CsvFile(stream, is_tsv=is_tsv, label=label)
        schema = pa.schema([(name, pa.large_string()) for name in file.columns])
        with pa.ipc.new_file(sink, schema) as writer:
            for batch in _batched(file.rows(), size_of=_cell_bytes):
                columns = zip(*batch, strict=True)
                arrays = [pa.array(cells, pa.large_string()) for cells in columns]
                writer.write_batch(pa.record_batch(arrays, schema))


def _cell_bytes(cells: Sequence[str | None]) -> int:
    return sum(len(cell or "") for cell in cells)


def _convert_parquet(path: Path, sink: pa.NativeFile, *, label: str) -> None:
    import pyarrow.parquet

    try:
        with (
            pyarrow.parquet.ParquetFile(path, page_checksum_verification=True) as file,
            pa.ipc.new_file(sink, schema := plain_schema(file.schema_arrow)) as writer,
        ):
            rows_per_batch = max(
                1, file.metadata.num_rows * BATCH_BYTES // max(path.stat().st_size, 1)
            )
            # One row group at a time: dictionaries within lists cannot be read across several.
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(min(rows_per_batch, 65536), [group]):
                    writer.write_batch(plain_batch(batch, schema))
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
        batch.append(row)
        size += size_of(row)
        if size >= BATCH_BYTES or len(batch) >= MAX_BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
