"""Arrow files whose every byte is vouched for: a digest a record batch, checked when it is read.

In: record batches. Out: an Arrow file with a table of segments behind it: the file's head, each
batch, its foot; where each ends, how many rows it holds, its XXH3 digest. Head, foot and table are
checked when the file is opened, and a batch before its first row is read, by each process that
reads it: what nobody reads costs nothing, and no offset is followed that may lead anywhere. XXH3
finds damage; it does not keep out somebody who may write here and computes it anew.
"""

import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import xxhash
from jaxtyping import Int64

SEGMENT = np.dtype([("end", "<i8"), ("num_rows", "<i8"), ("digest", "<u8")])
_TAIL = np.dtype([("magic", "S8"), ("num_segments", "<i8"), ("digest", "<u8")])
_MAGIC = b"SMOLROWS"
_HEAD_AND_FOOT = 2


Metadata = Mapping[bytes, bytes]
"""What a record batch says of itself."""


class WriteBatch(Protocol):
    """Writes a record batch."""

    def __call__(self, batch: pa.RecordBatch, metadata: Metadata | None = None) -> None: ...


class DamagedFileError(Exception):
    """A file does not hold what was written; no ValueError, which readers of rows answer."""


class BatchSink:
    """Where record batches are written one after another, and where each of them ends."""

    def __init__(self, stream: pa.NativeFile) -> None:
        self._stream = stream
        self._segments: list[tuple[int, int]] = []

    @contextmanager
    def writing(self, schema: pa.Schema) -> Iterator[WriteBatch]:
        """Yield what writes a batch, with metadata of its own or without; once a sink."""
        with pa.ipc.new_file(self._stream, schema) as writer:
            self._segments.append((self._stream.tell(), 0))

            def write(batch: pa.RecordBatch, metadata: Metadata | None = None) -> None:
                writer.write_batch(batch, custom_metadata=metadata)
                self._segments.append((self._stream.tell(), batch.num_rows))

            yield write
        self._segments.append((self._stream.tell(), 0))

    def seal(self, path: Path) -> None:
        """Write the table of segments behind a file that holds all batches, and is closed.

        Raises:
            OSError: it cannot be written.
        """
        segments = np.zeros(len(self._segments), SEGMENT)
        segments["end"], segments["num_rows"] = zip(*self._segments, strict=True)
        mapped = map_file(path)
        with memoryview(mapped) as content:
            begins = [0, *segments["end"][:-1].tolist()]
            for segment, begin in zip(segments, begins, strict=True):
                with content[begin : segment["end"]] as part:
                    segment["digest"] = xxhash.xxh3_64_intdigest(part)
        mapped.close()
        table = segments.tobytes()
        tail = np.array([(_MAGIC, len(segments), xxhash.xxh3_64_intdigest(table))], _TAIL)
        with path.open("ab") as file:
            file.write(table + tail.tobytes())


class CheckedArrow:
    """The record batches of a sealed file that is mapped from disk, or of one in memory."""

    def __init__(self, source: Path | pa.Buffer) -> None:
        """
        Raises:
            DamagedFileError: the table, the head or the foot is not what was written.
            OSError, ValueError: there is no such file, or it is empty.
        """
        self.mapped = map_file(source) if isinstance(source, Path) else None
        self._bytes = pa.py_buffer(source if self.mapped is None else self.mapped)
        self._segments = None if self.mapped is None else _segments_of(memoryview(self._bytes))
        arrow = self._bytes
        if self._segments is not None:
            arrow = self._bytes.slice(0, int(self._segments["end"][-1]))
            self._check_segment(0)
            self._check_segment(len(self._segments) - 1)
        self._reader = pa.ipc.open_file(pa.BufferReader(arrow))
        self._batches: list[tuple[pa.RecordBatch, Metadata] | None] = [
            None
        ] * self._reader.num_record_batches
        if self._segments is not None and len(self._segments) != len(self._batches) + 2:
            raise DamagedFileError
        self.schema: pa.Schema = self._reader.schema

    def __len__(self) -> int:
        return len(self._batches)

    def batch_rows(self) -> Int64[np.ndarray, " batch"]:
        """Return how many rows each batch has."""
        if self._segments is not None:
            return self._segments["num_rows"][1:-1]
        return np.array([self.batch(number)[0].num_rows for number in range(len(self))], np.int64)

    def batch(self, number: int) -> tuple[pa.RecordBatch, Metadata]:
        """Return a batch, checked the first time, and its own metadata.

        Raises:
            DamagedFileError: it is not what was written.
        """
        read = self._batches[number]
        if read is None:
            if self._segments is not None:
                self._check_segment(number + 1)
            batch, metadata = self._reader.get_batch_with_custom_metadata(number)
            read = self._batches[number] = batch, dict(metadata or {})
        return read

    def _check_segment(self, number: int) -> None:
        assert self._segments is not None
        begin = int(self._segments["end"][number - 1]) if number else 0
        end, _, digest = self._segments[number]
        part = self._bytes.slice(begin, int(end) - begin)
        if xxhash.xxh3_64_intdigest(part) != digest:
            raise DamagedFileError


def map_file(path: Path) -> mmap.mmap:
    """Map a file to be read."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _segments_of(content: memoryview) -> np.ndarray:
    """Return the table behind a file, an array of `SEGMENT`.

    Raises:
        DamagedFileError: there is none, or it is not what was written.
    """
    if len(content) < _TAIL.itemsize:
        raise DamagedFileError
    tail = np.frombuffer(content[-_TAIL.itemsize :], _TAIL)[0]
    count, end = int(tail["num_segments"]), len(content) - _TAIL.itemsize
    begin = end - count * SEGMENT.itemsize
    if tail["magic"] != _MAGIC or count < _HEAD_AND_FOOT or begin < 0:
        raise DamagedFileError
    table = content[begin:end]
    if xxhash.xxh3_64_intdigest(table) != tail["digest"]:
        raise DamagedFileError
    segments = np.frombuffer(table, SEGMENT)
    if segments["end"][-1] != begin or (np.diff(segments["end"], prepend=0) < 0).any():
        raise DamagedFileError
    return segments
