"""MP4 files that claim more samples than they have bytes.

Comes in: an open file. Goes out: nothing, or a `SampleError`. A table of an MP4 may say "fifty
million samples of one byte" in twelve bytes, and FFmpeg makes an entry of 24 bytes of each when it
opens the file. A sample takes a byte at least, so a file that has fewer bytes lies.
"""

from collections.abc import Iterator
from typing import BinaryIO

from smolvlm.errors import SampleError
from smolvlm.media.decode_time import check_time

_PIXELS = frozenset({b"mdat", b"free", b"skip", b"wide"})
"""Boxes that hold no tables."""
_COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
"""Names of tables, and how far behind its name a table says how many samples it is of."""
_FIRST = _PIXELS | {b"ftyp", b"moov", b"moof", b"styp", b"sidx", b"pnot", b"udta", b"uuid", b"junk"}
_FREE_SAMPLES = 1 << 16


def check_tables(file: BinaryIO, *, name: str) -> None:
    """Refuse an MP4 of more samples than bytes; the file is left at its begin.

    Args:
        file: the clip, at its begin; another kind of file passes.
        name: what messages call it.

    Raises:
        SampleError: it is one, or has a compressed header, in which nothing can be counted.
        OSError: it cannot be read.
    """
    if file.read(8)[4:] not in _FIRST:
        file.seek(0)
        return
    num_bytes = file.seek(0, 2)
    num_samples = 0
    for data in _headers(file, num_bytes):
        if b"cmov" in data:
            what = f"clip {name} is an MP4 with a compressed header"
            raise SampleError(what, kind="corrupt_media", fix="convert it: ffmpeg -c copy")
        num_samples += sum(_counts(data))
    if num_samples > max(num_bytes, _FREE_SAMPLES):
        raise SampleError(
            f"clip {name} is an MP4 of {num_bytes:,} bytes that lists {num_samples:,} samples",
            kind="corrupt_media",
            fix="replace the file",
        )
    file.seek(0)


def _headers(file: BinaryIO, num_bytes: int) -> Iterator[bytes]:
    """Yield the name and the content of each box of the file that may hold tables."""
    place = 0
    while place + 8 <= num_bytes:
        check_time()
        file.seek(place)
        head = file.read(16)
        size, name = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        size = num_bytes - place if size == 0 else size
        if size < 8:
            return
        if name not in _PIXELS:
            file.seek(place + 4)
            yield file.read(min(size, num_bytes - place) - 4)
        place += size


def _counts(data: bytes) -> Iterator[int]:
    """Yield the number of samples of each table, wherever it is nested."""
    for name, offset in _COUNTS.items():
        place = data.find(name)
        while place >= 0:
            begin = place + len(name) + offset
            yield int.from_bytes(data[begin : begin + 4], "big")
            place = data.find(name, place + 1)
