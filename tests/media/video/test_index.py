"""`smolvlm.media.video.index`: a clip's times without decoding it, wherever its bytes are, or an
error that helps."""

import os
import shutil
import struct
import subprocess
import sys
import tarfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm.errors import SampleError
from smolvlm.media.video import files as clip_files
from smolvlm.media.video.frame_folders import list_pictures
from smolvlm.media.video.frames import FrameSettings, choose_frames
from smolvlm.media.video.index import read_index, scan_clip
from smolvlm.media.video.reader import clip_key
from smolvlm.records import ImageRef, VideoRef
from tests.media.conftest import CLOCK_BEGINS_S


def failure(ref: VideoRef) -> str:
    with pytest.raises(SampleError) as raised:
        read_index(ref)
    text = str(raised.value)
    assert "\n  fix: " in text
    return text


def decoded_times(path: Path) -> list[int | None]:
    import av

    with av.open(str(path)) as container:
        return [frame.pts for frame in container.decode(video=0)]


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "num_frames", "duration_s"),
    [
        ("bigbuckbunny", 132, 5.28),
        ("bikes", 250, 10.0),
        ("carphone_pristine", 120, 4.004),
        ("carphone_distorted", 120, 4.004),
    ],
)
def test_real_clips_have_the_times_that_decoding_them_gives(
    name, num_frames, duration_s, real_clips
):
    index = read_index(VideoRef(path=real_clips[name]))
    assert len(index.pts) == num_frames
    assert index.duration_s == duration_s
    assert index.pts.tolist() == decoded_times(real_clips[name])


def test_made_clips_have_the_times_that_decoding_them_gives(made_clips):
    by_counting = {"h264_avi", "h264_bare"}
    for name, path in made_clips.items():
        scan = scan_clip(VideoRef(path=path))
        assert scan.times_are_usable == (name not in by_counting), name
        if name not in by_counting:
            assert scan.index.pts.tolist() == decoded_times(path), name
        assert np.all(np.diff(scan.index.pts) > 0), name
        assert len(scan.index.pts) == (16 if "uneven" in name else 60), name
        assert scan.index.duration_s == pytest.approx(
            3.05 if "uneven" in name else 2.4, abs=0.05
        ), name
        assert scan.keyframe_pts[0] <= scan.index.pts[0], name


def test_uneven_times_are_kept_and_a_late_clock_is_not(made_clips):
    uneven = read_index(VideoRef(path=made_clips["h264_uneven"]))
    assert uneven.times_s[[0, 1, 3, -1]].tolist() == [0.0, 0.01, 0.5, 3.01]
    late = read_index(VideoRef(path=made_clips["h264_late"]))
    assert int(late.pts[0]) * late.time_base == 10
    assert (late.times_s[0], late.times_s[-1], late.duration_s) == (0.0, 2.36, 2.4)


@pytest.mark.parametrize("name", CLOCK_BEGINS_S)
def test_times_count_from_the_first_frame_wherever_the_files_clock_begins(name, made_clips):
    index = read_index(VideoRef(path=made_clips[name]))
    assert float(int(index.pts[0]) * index.time_base) >= CLOCK_BEGINS_S[name]
    assert index.times_s == pytest.approx(np.arange(60) / 25, abs=0.001)
    assert index.duration_s == pytest.approx(2.4, abs=0.001)
    wanted = FrameSettings(fps=5, max_frames=64, sampling="fps")
    part = choose_frames(index, wanted, start_s=1.0, end_s=1.5)
    assert part.times_s == pytest.approx((1.0, 1.48), abs=0.3)
    assert part.numbers[0] == 25


def test_frames_stored_behind_the_keyframe_they_are_shown_before_are_noticed(made_clips):
    found = {
        name
        for name, path in made_clips.items()
        if scan_clip(VideoRef(path=path)).has_leading_frames
    }
    assert found == {"h265", "h264_open_groups", "h264_intra_refresh", "mpeg4_reordered"}


def test_what_an_edit_list_cuts_away_is_no_frame(made_clips, tmp_path):
    """The clip is cut by 20 frames in the middle of a group, which a player decodes and does not
    show."""
    data = bytearray(made_clips["h264"].read_bytes())
    entry = data.index(b"elst") + 12
    duration, media_time = struct.unpack(">Ii", data[entry : entry + 8])
    data[entry : entry + 8] = struct.pack(">Ii", duration - 800, media_time + 20 * 512)
    path = tmp_path / "cut.mp4"
    path.write_bytes(data)
    scan = scan_clip(VideoRef(path=path))
    assert len(scan.index.pts) == 40
    assert scan.index.pts.tolist() == decoded_times(path)
    assert scan.keyframe_pts[0] < scan.index.pts[0]


def test_what_comes_before_the_first_keyframe_is_no_frame(made_clips, tmp_path):
    """A recording that begins in the middle of a group: a transport stream cut at packets of 188
    bytes."""
    data = made_clips["h264_transport"].read_bytes()
    packets = [data[at : at + 188] for at in range(0, len(data), 188)]
    whole = scan_clip(VideoRef(path=made_clips["h264_transport"]))
    tables = [packet for packet in packets if (packet[1] & 0x1F) << 8 | packet[2] in (0, 0x1000)][
        :2
    ]
    cut = VideoRef(data=b"".join(tables + packets[30:]))
    index = read_index(cut)
    assert 0 < len(index.pts) < 60
    assert index.pts[0] in whole.keyframe_pts
    assert index.pts.tolist() == whole.index.pts[-len(index.pts) :].tolist()


def test_vp8_packets_that_are_never_shown_are_no_frames(made_clips):
    """The hidden bit is set by hand: whether the encoder makes such packets is its own affair."""
    path = made_clips["vp8"]
    data = bytearray(path.read_bytes())
    import av

    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    at = data.index(packets[20])
    data[at] &= ~0x10
    assert len(read_index(VideoRef(data=bytes(data))).pts) == len(packets) - 1


# --- sources --------------------------------------------------------------------------------------


def test_a_file_its_bytes_and_a_part_of_a_tar_are_one(made_clips, tmp_path):
    for name in ("h264", "vp9", "mpeg4"):
        path = made_clips[name]
        with tarfile.open(tmp_path / "shard.tar", "w") as shard:
            shard.add(made_clips["ffv1"], "first.mkv")
            shard.add(path, path.name)
            shard.add(made_clips["ffv1"], "last.mkv")
        with tarfile.open(tmp_path / "shard.tar") as shard:
            member = shard.getmember(path.name)
        expected = read_index(VideoRef(path=path))
        part = VideoRef(path=tmp_path / "shard.tar", span=(member.offset_data, member.size))
        for ref in (VideoRef(data=path.read_bytes()), part):
            index = read_index(ref)
            assert index.pts.tolist() == expected.pts.tolist()
            assert (index.time_base, index.end_pts) == (expected.time_base, expected.end_pts)


def test_a_file_that_changes_is_read_again(made_clips, tmp_path):
    path = tmp_path / "clip"
    shutil.copy(made_clips["h264"], path)
    assert scan_clip(VideoRef(path=path)) is scan_clip(VideoRef(path=path))
    shutil.copy(made_clips["vp9_uneven"], path)
    assert len(read_index(VideoRef(path=path)).pts) == 16


def test_a_file_that_is_replaced_by_one_of_equal_size_is_read_again(made_clips, tmp_path):
    """Padded to one length: what stands behind the last box of an MP4 is passed over."""
    path = tmp_path / "clip"
    steady, uneven = (made_clips[name].read_bytes() for name in ("h264", "h264_uneven"))
    size = max(len(steady), len(uneven)) + 8

    def padded(data):
        return data + (size - len(data)).to_bytes(4, "big") + b"free" + bytes(size - len(data) - 8)

    found = []
    for number, data in enumerate((steady, uneven)):
        path.write_bytes(padded(data))
        os.utime(path, ns=(number * 10**9, number * 10**9))
        found.append((len(read_index(VideoRef(path=path)).pts), clip_key(VideoRef(path=path))))
    assert [num_frames for num_frames, _ in found] == [60, 16]
    assert found[0][1] != found[1][1]


def test_nothing_stays_open(made_clips):
    before = len(os.listdir("/proc/self/fd"))
    for path in made_clips.values():
        read_index(VideoRef(path=path, span=(0, path.stat().st_size)))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("source_fps", [1.0, 10.0, 29.97])
def test_pictures_come_at_their_own_rate(source_fps, tmp_path):
    for name in ("frame_10.png", "frame_2.png", "frame_1.png", "notes.txt", ".hidden_1.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name, "PNG")
    (tmp_path / "frame_3.png").mkdir()
    refs = (
        VideoRef(path=tmp_path, source_fps=source_fps),
        VideoRef(frames=tuple(ImageRef(data=b"x") for _ in range(3)), source_fps=source_fps),
    )
    for ref in refs:
        index = read_index(ref)
        assert index.times_s.tolist() == [
            0,
            float(1 / Fraction(str(source_fps))),
            float(2 / Fraction(str(source_fps))),
        ]
        assert index.duration_s == float(3 / Fraction(str(source_fps)))


def test_a_folder_is_sorted_as_people_count_and_litter_is_left_out(tmp_path):
    names = [
        "b_1.jpg",
        "a_10.jpg",
        "a_9.JPG",
        "a.png",
        "a_010.webp",
        "12.jpg",
        "3.jpg",
        "a_2_1.jpg",
        "img (10).png",
        "img (1).png",
        "img (2).png",
    ]
    litter = ["._3.jpg", ".DS_Store", "Thumbs.db", ".hidden.png", "notes.txt"]
    for name in [*names, *litter]:
        (tmp_path / name).touch()
    pictures = list_pictures(VideoRef(path=tmp_path)) or ()
    assert [picture.path.name for picture in pictures if picture.path] == [
        *("3.jpg", "12.jpg", "a.png", "a_2_1.jpg", "a_9.JPG", "a_010.webp", "a_10.jpg", "b_1.jpg"),
        *("img (1).png", "img (2).png", "img (10).png"),
    ]


# --- refusals -------------------------------------------------------------------------------------


def test_files_that_cannot_be_read_are_named_with_cause_and_mend(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.txt").touch()
    expected = {
        tmp_path / "none.mp4": "none.mp4 does not exist",
        tmp_path / "folder": "folder is a folder without pictures (it holds 'notes.txt')",
        tmp_path / "empty.mp4": "empty.mp4 is empty (zero bytes)",
        tmp_path / "empty.mp4" / "x.mp4": "cannot be read (Not a directory)",
        tmp_path / ("n" * 300): "cannot be read (File name too long)",
        Path("null\0byte"): "cannot be read (embedded null byte)",
    }
    for path, text in expected.items():
        assert text in failure(VideoRef(path=path))
    assert "clip <0 bytes in the row> is empty (zero bytes)" in failure(VideoRef(data=b""))
    assert "is empty" in failure(VideoRef(path=tmp_path / "folder" / "notes.txt", span=(5, 10)))


def test_what_is_no_video_is_shown_by_its_first_bytes(tmp_path, real_clips):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "page.mp4").write_bytes(b"<!DOCTYPE html><html>not found</html>")
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{real_clips['bikes']}\n")
    (tmp_path / "list.txt").write_text(f"ffconcat version 1.0\nfile {real_clips['bikes']}\n")
    for name in ("a.png", "page.mp4", "list.m3u8", "list.txt"):
        assert (
            f"{name} is not a video of a known format, or its header is damaged or cut off (it"
            in failure(VideoRef(path=tmp_path / name))
        )
    assert "fix: it is a picture: name it as `image`" in failure(VideoRef(path=tmp_path / "a.png"))
    assert "it begins with b'<!DOCTYPE ht')" in failure(VideoRef(path=tmp_path / "page.mp4"))


def test_a_file_that_ends_early_is_refused(made_clips):
    header_last, header_first = (
        made_clips[name].read_bytes() for name in ("h264", "h264_header_first")
    )
    assert header_last.index(b"mdat") < header_last.index(b"moov")
    assert "an MP4 whose index is missing: it was cut off" in failure(
        VideoRef(data=header_last[: len(header_last) // 2])
    )
    assert header_first.index(b"moov") < header_first.index(b"mdat")
    for share in (0.3, 0.9):
        text = failure(VideoRef(data=header_first[: int(len(header_first) * share)]))
        assert (
            "is damaged or cut short (its header lists frames behind the end of the file)" in text
        )


def test_sound_alone_is_no_video(tmp_path):
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 4096), dtype=np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "sound.mp4 has no video stream" in failure(VideoRef(path=tmp_path / "sound.mp4"))


def test_a_decompression_bomb_is_refused_by_its_header(made_clips):
    data = bytearray(made_clips["ffv1"].read_bytes())
    width, height = (
        data.index(b"\xb0\x81\x40"),
        data.index(b"\xba\x81\x30"),
    )  # PixelWidth 64, PixelHeight 48
    assert abs(width - height) < 16
    data[width : width + 3], data[height : height + 3] = b"\xb0\x81\x7f", b"\xba\x81\x7f"
    assert read_index(VideoRef(data=bytes(data))) is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clip_files, "MAX_FRAME_PIXELS", 100 * 127)
        assert (
            "frames larger than the limit of 12700 pixels (its header says 127 x 127)"
            in failure(VideoRef(data=bytes(data)))
        )


@pytest.mark.parametrize("source_fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(source_fps):
    ref = VideoRef(frames=(ImageRef(data=b"x"), ImageRef(data=b"y")), source_fps=source_fps)
    assert (
        f"source_fps={source_fps:g} of clip <1 bytes in the row> and 1 more frames is not a rate"
        in failure(ref)
    )


def test_without_pyav_the_extra_is_named(made_clips):
    code = (
        "import sys; sys.modules['av'] = None\n"
        "from smolvlm.media.video.index import read_index; from smolvlm.records import VideoRef\n"
        "read_index(VideoRef(data=b'x'))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (
        'ConfigError: clips are read with PyAV, which is missing\n  fix: pip install "av>=18"'
        in result.stderr
    )


def test_importing_the_room_imports_no_video_package():
    code = "import sys, smolvlm.media.video.reader, smolvlm.media.video.check\n"
    code += "print([name for name in ('av', 'decord', 'torchcodec') if name in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("error", [ValueError("a kind"), KeyError("x"), OverflowError()])
def test_whatever_ffmpeg_or_pyav_raises_is_about_the_clip(error, made_clips, monkeypatch):
    import av.container

    def fails(*_arguments, **_options):
        raise error

    monkeypatch.setattr(av.container, "open", fails)
    text = failure(VideoRef(data=made_clips["h264"].read_bytes()))
    assert "is an MP4 whose index is missing" in text
    text = failure(VideoRef(data=made_clips["vp9"].read_bytes()))
    assert "its header is damaged or cut off" in text
