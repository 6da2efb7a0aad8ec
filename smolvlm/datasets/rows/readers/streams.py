"""Files of rows as streams of bytes, decompressed on the way, and cut into lines.

In: a path. Out: an open stream. gzip and zstd are Arrow's. A compressed file may hold any amount,
so a line above a row's limit is passed over and told by its length, and a file that swells without
measure is an error of the file.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from smolvlm.config.row_files import row_file
from smolvlm.datasets.rows.sources import MAX_ROW_BYTES
from smolvlm.errors import SampleError

FREE_BYTES = 256 << 20
"""Up to so much a file may come to whatever its size is."""
MAX_SWELLING = 200
"""How many times its size a compressed file may come to, once it is past `FREE_BYTES`. Text comes
to 3 to 20 times; gzip could to 1,000, zstd to 30,000, a dictionary in Parquet without end."""
_BUFFER_BYTES = 1 << 20


class OversizeRow(int):
    """The bytes of a row that was passed over: it has more than it may."""


@contextmanager
def open_rows(path: Path, *, label: str) -> Iterator[BinaryIO]:
    """Open a file of rows for reading; a compressed one is decompressed as it is read.

    Args:
        path: the file; its ending says what it is compressed with.
        label: what messages call it.

    Raises:
        OSError: the file cannot be opened.
        SampleError: while reading: it is damaged, cut short, or swells without measure.
    """
    named = row_file(path)
    if named is None or named.compression is None:
        with path.open("rb") as stream:
            yield stream
        return
    size = path.stat().st_size
    if size == 0:
        what = f"the file is empty, and no {named.compression} file"
        fix = "copy it again, or compress it anew"
        raise SampleError(what, kind="bad_file", where=label, fix=fix)
    with pa.input_stream(str(path), compression=named.compression) as inner:
        raw = _Decompressed(inner, size=size, name=named.compression, label=label)
        yield io.BufferedReader(raw, _BUFFER_BYTES)


def is_longer_than(path: Path, limit: int, *, label: str) -> bool:
    """Say whether a file of rows holds more than `limit` bytes, once decompressed.

    A compressed file is read up to there: its own size says nothing of it.
    """
    if path.stat().st_size > limit:
        return True
    named = row_file(path)
    if named is None or named.compression is None:
        return False
    with open_rows(path, label=label) as stream:
        while limit >= 0 and (data := stream.read(min(limit + 1, _BUFFER_BYTES))):
            limit -= len(data)
    return limit < 0


def lines_of(
    stream: BinaryIO, *, max_row_bytes: int = MAX_ROW_BYTES
) -> Iterator[bytes | OversizeRow]:
    """Yield the lines of a stream, each with its newline; of one that is too long, its length."""
    while line := stream.readline(max_row_bytes + 1):
        if len(line) <= max_row_bytes:
            yield line
            continue
        num_bytes = len(line)
        while not line.endswith(b"\n") and (line := stream.readline(_BUFFER_BYTES)):
            num_bytes += len(line)
        yield OversizeRow(num_bytes)


def oversize_row(num_bytes: int, limit: int) -> SampleError:
    """Return what is wrong with a row of more bytes than it may have."""
    return SampleError(
        f"the row has {num_bytes:,} bytes, more than data.max_row_bytes = {limit:,}",
        kind="too_large_row",
        fix="write one row a line, and media as files; or raise `data.max_row_bytes` if you have "
        "the memory: reading a row takes several times its bytes",
    )


def swelling_limit(file_bytes: int) -> int:
    """Return how many bytes a compressed file of this size may come to."""
    return max(FREE_BYTES, file_bytes * MAX_SWELLING)


def swells(label: str) -> SampleError:
    """Return what is wrong with a file that comes to more."""
    what = f"decompresses to more than {MAX_SWELLING} times its size"
    fix = "decompress it yourself if you trust it, and name the plain file"
    return SampleError(what, kind="bad_file", where=label, fix=fix)


class _Decompressed(io.RawIOBase):
    """A compressed file's content."""

    def __init__(self, inner: pa.NativeFile, *, size: int, name: str, label: str) -> None:
        self._inner = inner
        self._limit = swelling_limit(size)
        self._name = name
        self._label = label
        self._num_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        try:
            data = self._inner.read(len(buffer))
        except (OSError, pa.ArrowException) as error:
            what = f"no {self._name} file, damaged or cut short: {error}"
            fix = "copy it again, or compress it anew"
            raise SampleError(what, kind="bad_file", where=self._label, fix=fix) from None
        self._num_read += len(data)
        if self._num_read > self._limit:
            raise swells(self._label)
        buffer[: len(data)] = data
        return len(data)
