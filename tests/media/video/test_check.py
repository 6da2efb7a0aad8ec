"""`smolvlm.media.video.check`: a healthy clip passes, a damaged one is found and quoted, the log
left as it was."""

import re
import shutil
import threading

import av
import numpy as np
import pytest

from smolvlm.errors import SampleError
from smolvlm.media.video.check import ClipFacts, check_clip
from smolvlm.media.video.index import read_index
from smolvlm.records import ImageRef, VideoRef

TELLING = ("h264", "h264_header_first", "h264_open_groups", "h264_bare", "h265", "mpeg2", "ffv1")
"""Clips whose damaged pixel data does not decode without a word."""


def finding(ref: VideoRef) -> str:
    with pytest.raises(SampleError) as raised:
        check_clip(ref)
    text = str(raised.value)
    assert text.startswith(f"clip {ref.name} is damaged or cut short (")
    assert "\n  fix: replace the file" in text
    return text


def flipped(data: bytes, *, at: float, num_bytes: int = 400) -> bytes:
    """Change bytes in the middle of what the packets hold."""
    begin, end = len(data) // 8, len(data) * 7 // 8
    if b"mdat" in data:
        begin = data.index(b"mdat") + 4
        end = begin - 8 + int.from_bytes(data[begin - 8 : begin - 4], "big")
    damaged = bytearray(data)
    first = begin + int((end - begin - num_bytes) * at)
    noise = np.random.default_rng(0).integers(1, 256, num_bytes, dtype=np.uint8)
    for offset, change in enumerate(noise.tolist()):
        damaged[first + offset] ^= change
    return bytes(damaged)


def test_real_clips_are_whole(real_clips):
    expected = {
        "bigbuckbunny": ClipFacts(width=1280, height=720, num_frames=132, duration_s=5.28),
        "bikes": ClipFacts(width=640, height=272, num_frames=250, duration_s=10.0),
        "carphone_pristine": ClipFacts(width=176, height=144, num_frames=120, duration_s=4.004),
        "carphone_distorted": ClipFacts(width=176, height=144, num_frames=120, duration_s=4.004),
    }
    for name, path in real_clips.items():
        assert check_clip(VideoRef(path=path)) == expected[name]


def test_made_clips_of_every_kind_are_whole(made_clips):
    for name, path in made_clips.items():
        facts = check_clip(VideoRef(path=path))
        index = read_index(VideoRef(path=path))
        is_on_its_side = name in ("h264_turned_1", "h264_turned_3")
        assert (facts.width, facts.height) == ((48, 64) if is_on_its_side else (64, 48)), name
        assert (facts.num_frames, facts.duration_s) == (len(index.pts), index.duration_s), name


def test_a_clip_that_begins_in_the_middle_of_a_group_is_whole(made_clips):
    data = made_clips["h264_transport"].read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    tables = [packet for packet in packets if (packet[1] & 0x1F) << 8 | packet[2] in (0, 0x1000)][
        :2
    ]
    assert 0 < check_clip(VideoRef(data=b"".join(tables + packets[30:]))).num_frames < 60


def test_changed_bytes_within_the_pixels_are_found(made_clips, real_clips):
    """Not every change is: what arithmetic coding makes of changed bytes is now and then as long as
    the picture."""
    for path in (*(made_clips[name] for name in TELLING), *real_clips.values()):
        finding(VideoRef(data=flipped(path.read_bytes(), at=0.5)))


@pytest.mark.parametrize("at", [0.1, 0.5, 0.7, 0.9])
def test_what_ffmpeg_said_first_is_quoted_with_the_time(at, real_clips):
    text = finding(VideoRef(data=flipped(real_clips["bikes"].read_bytes(), at=at)))
    assert "; FFmpeg: h264: " in text
    [time_s] = re.findall(r" ([\d.]+) s", text)
    assert abs(float(time_s) - 10 * at) < 2.5


def test_a_clip_that_ends_early_is_found(made_clips):
    for name in ("h264_header_first", "h264_open_groups", "vp9", "ffv1"):
        data = made_clips[name].read_bytes()
        finding(VideoRef(data=data[: len(data) * 6 // 10]))


def test_frames_that_never_come_are_found(made_clips):
    """A packet of a codec that checks nothing is emptied: no complaint, and one frame less."""
    import av

    with av.open(str(made_clips["mjpeg"])) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = made_clips["mjpeg"].read_bytes().replace(packets[25], b"\0" * len(packets[25]))
    assert "near 1.000 s" in finding(VideoRef(data=data))


def test_frames_out_of_order_are_found(tmp_path):
    """Two frames whose times are exchanged: all come, and a reader that looks for the earlier one
    has passed it."""
    path = tmp_path / "exchanged.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuv420p"
        frames = [
            av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 * n, np.uint8)) for n in range(8)
        ]
        packets = [packet for frame in (*frames, None) for packet in stream.encode(frame)]
        for packet in packets:
            packet.dts -= 2
        packets[4].pts, packets[5].pts = packets[5].pts, packets[4].pts
        container.mux(packets)
    assert "(the frame at 0.160 s comes after that at 0.200 s)" in finding(VideoRef(path=path))


def test_pictures_are_opened_to_the_last(photos, tmp_path):
    for number, name in enumerate(("coffee", "camera")):
        shutil.copy(photos[name], tmp_path / f"{number}.png")
    ref = VideoRef(path=tmp_path, source_fps=4.0)
    assert check_clip(ref) == ClipFacts(width=75, height=50, num_frames=2, duration_s=0.5)
    (tmp_path / "1.png").write_bytes(photos["camera"].read_bytes()[:-100])
    with pytest.raises(SampleError, match=r"1\.png is damaged or cut short"):
        check_clip(ref)
    with pytest.raises(SampleError, match=r"picture none\.png does not exist"):
        check_clip(VideoRef(frames=(ImageRef(path=type(tmp_path)("none.png")),)))


def test_ffmpegs_log_is_left_as_it_was(made_clips, real_clips, capfd):
    from av import logging as av_logging

    before = av_logging.get_level(), av_logging.get_skip_repeated()
    check_clip(VideoRef(path=made_clips["h264"]))
    damaged = VideoRef(data=flipped(real_clips["bikes"].read_bytes(), at=0.5))
    assert finding(damaged) == finding(damaged)
    assert (av_logging.get_level(), av_logging.get_skip_repeated()) == before
    assert capfd.readouterr() == ("", "")


def test_clips_checked_in_several_threads_are_told_apart(made_clips, real_clips):
    damaged = flipped(made_clips["h264"].read_bytes(), at=0.5)
    found: dict[int, str] = {}

    def check_rows(number: int) -> None:
        data = damaged if number % 2 else made_clips["h264"].read_bytes()
        try:
            check_clip(VideoRef(data=data))
            found[number] = "whole"
        except SampleError:
            found[number] = "damaged"

    threads = [threading.Thread(target=check_rows, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: "damaged" if number % 2 else "whole" for number in range(8)}
