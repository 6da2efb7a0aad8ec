"""An MP4 that lists more samples than it has bytes is refused before FFmpeg makes room for them."""

import io
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from smolvlm.errors import SampleError
from smolvlm.media.video.check import check_clip
from smolvlm.media.video.index import read_index
from smolvlm.records import VideoRef

MILLIONS = 50_000_000


def mp4(**options: str) -> bytes:
    """A clip of ten frames."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options=options) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for shade in range(10):
            pixels = np.full((64, 64, 3), shade * 20, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def changed(data: bytes, box: bytes, offset: int, number: int) -> bytes:
    """Write a number so many bytes behind a box's name."""
    place = data.index(box) + 4 + offset
    return data[:place] + struct.pack(">I", number) + data[place + 4 :]


PLAIN, FRAGMENTS = mp4(), mp4(movflags="frag_keyframe+empty_moov")
LIES = {
    "sizes": changed(changed(PLAIN, b"stsz", 4, 1), b"stsz", 8, MILLIONS),
    "fragments": changed(FRAGMENTS, b"trun", 4, MILLIONS),
    "a nested table": PLAIN + struct.pack(">I4sI4sIII", 28, b"udta", 20, b"stsz", 0, 1, MILLIONS),
    "no mark of its kind": changed(
        changed(PLAIN[PLAIN.index(b"free") - 4 :], b"stsz", 4, 1), b"stsz", 8, MILLIONS
    ),
    "halves": PLAIN + struct.pack(">I4sIII", 20, b"stz2", 0, 4, MILLIONS),
}


@pytest.mark.parametrize("data", [PLAIN, FRAGMENTS], ids=["plain", "fragments"])
def test_honest_tables_pass(data: bytes, tmp_path: Path) -> None:
    assert check_clip(VideoRef(data=data)).num_frames == 10
    (tmp_path / "shard").write_bytes(b"x" * 100 + data + b"y" * 100)
    part = VideoRef(path=tmp_path / "shard", span=(100, len(data)))
    assert len(read_index(part).pts) == 10


@pytest.mark.parametrize("name", [*LIES])
@pytest.mark.parametrize("read", [check_clip, read_index])
def test_more_samples_than_bytes_are_refused(name: str, read: object) -> None:
    assert callable(read)
    with pytest.raises(SampleError, match=r"an MP4 of [\d,]+ bytes that lists 50,000,\d\d\d sampl"):
        read(VideoRef(data=LIES[name]))


def test_a_compressed_header_is_refused() -> None:
    data = PLAIN + struct.pack(">I4sI4s", 16, b"moov", 8, b"cmov")
    with pytest.raises(SampleError, match="compressed header"):
        check_clip(VideoRef(data=data))
