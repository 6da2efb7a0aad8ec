"""Files of rows turned into Arrow files, once.

In: a JSON list, JSON lines, a Parquet file or a shard. Out: `ArrowRows`. The Arrow file lies in the
cache folder (`cache_dir`, folder `rows`), named by the source's path, size and time of change, and
may be deleted at any time. Small files are converted in memory.
"""

import os
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa

from smolvlm.datasets.rows.readers.arrow import ArrowRows
from smolvlm.datasets.rows.readers.json import json_lines, json_list
from smolvlm.datasets.rows.readers.tar import tar_index
from smolvlm.datasets.rows.sources import RowFormat
from smolvlm.errors import SampleError
from smolvlm.home import cache_dir

IN_MEMORY_BYTES = 8 << 20
"""Files up to this size are not cached."""
BATCH_BYTES = 8 << 20
CONVERSION = 1
"""Raise it when the Arrow files of an earlier version must not be read."""
_JSON_SCHEMA = pa.schema([("json", pa.large_binary()), ("number", pa.int64())])


def arrow_rows(path: Path, row_format: RowFormat, *, label: str) -> ArrowRows:
    """Return the rows of a file, converted where that was not done yet.

    Raises:
        OSError: the file cannot be read.
        SampleError: it is not of its format.
    """
    if (
        path.stat().st_size <= IN_MEMORY_BYTES
    ):  # a shard's index is small, but reading its headers takes long
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


def _convert(path: Path, row_format: RowFormat, sink: pa.NativeFile, *, label: str) -> None:
    """Write a file's rows to an Arrow file, a few megabytes at a time."""
    if row_format == "parquet":
        _convert_parquet(path, sink, label=label)
        return
    with path.open("rb") as stream, pa.ipc.new_file(sink, _JSON_SCHEMA) as writer:
        match row_format:
            case "jsonl":
                rows = json_lines(stream)
            case "tar":
                rows = tar_index(path, label=label)
            case _:
                rows = json_list(stream, label=label)
        for texts, numbers in _batched(rows):
            writer.write_batch(
                pa.record_batch(
                    [pa.array(texts, pa.large_binary()), pa.array(numbers)], _JSON_SCHEMA
                )
            )


def _convert_parquet(path: Path, sink: pa.NativeFile, *, label: str) -> None:
    import pyarrow.parquet

    try:
        with (
            pyarrow.parquet.ParquetFile(path) as file,
            pa.ipc.new_file(sink, file.schema_arrow) as writer,
        ):
            rows_per_batch = max(
                1, file.metadata.num_rows * BATCH_BYTES // max(path.stat().st_size, 1)
            )
            for batch in file.iter_batches(batch_size=min(rows_per_batch, 65536)):
                writer.write_batch(batch)
    except (pa.ArrowException, ValueError) as error:
        what = f"not a Parquet file: {error}"
        raise SampleError(what, kind="bad_file", where=label, fix="write the file anew") from None


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
