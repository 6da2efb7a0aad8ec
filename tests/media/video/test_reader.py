"""`smolvlm.media.video.reader`: the very frames that were chosen, whatever decodes them and
wherever the bytes are."""

import pickle
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm.errors import ConfigError, SampleError
from smolvlm.media.decoders import DecoderError
from smolvlm.media.images import content_key, open_rgb
from smolvlm.media.tile_grid import TileSettings
from smolvlm.media.video import by_number as clip_by_number
from smolvlm.media.video import pyav as clip_pyav
from smolvlm.media.video.check import check_clip
from smolvlm.media.video.frames import FrameSettings, choose_frames
from smolvlm.media.video.index import read_index
from smolvlm.media.video.reader import clip_key, frame_tiles, read_frames
from smolvlm.records import Frames, ImageRef, VideoRef
from tests.media.conftest import camera_jpeg

AS_STORED = 100_000
"""A longest side that nothing exceeds."""
TORCHCODEC_CANNOT = {
    "h264_transport",
    "h264_transport_late",
    "h264_avi",
    "h264_bare",
    "h264_intra_refresh",
    "mpeg2",
    "mpeg4_reordered",
}
DECORD_CANNOT = {
    *("h264_transport", "h264_transport_late", "h264_avi", "h264_bare", "h264_late"),
    *("h264_hours_late", "mpeg2", "mpeg4_reordered"),
}
"""They count or time these frames otherwise, and are refused."""
ON_ITS_SIDE = {"h264_turned_1", "h264_turned_3"}


def frames_of(ref: VideoRef, numbers: Sequence[int]) -> Frames:
    index = read_index(ref)
    times_s = tuple(index.times_s[list(numbers)].tolist())
    return Frames(numbers=tuple(numbers), times_s=times_s, duration_s=index.duration_s)


def read(
    ref: VideoRef, numbers: Sequence[int], backend="pyav", max_side_px: int = AS_STORED
) -> list[np.ndarray]:
    frames = frames_of(ref, numbers)
    return list(read_frames(ref, frames, max_side_px=max_side_px, backend=backend))


def failure(action, *arguments, kind=SampleError, **options) -> str:
    with pytest.raises(kind) as raised:
        action(*arguments, **options)
    assert "\n  fix: " in str(raised.value)
    return str(raised.value)


def in_sequence(path: Path) -> list[np.ndarray]:
    """Every frame, as it is stored, decoded from the first to the last."""
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other).mean())


def some_numbers(count: int) -> list[list[int]]:
    """Choices within one group of frames, across groups, and at the very end."""
    random = np.random.default_rng(0)
    drawn = [sorted(random.choice(count, size, replace=False).tolist()) for size in (1, 3, 6, 6)]
    return [[0], [count - 1], [count // 2, count // 2 + 1], *drawn]


# --- the right frames
# ----------------------------------------------------------------------------------------------


def test_any_choice_of_frames_is_that_of_decoding_in_sequence(made_clips):
    for name, path in made_clips.items():
        turns = int(name[-1]) if "turned" in name else 0
        expected = [np.rot90(frame, turns) for frame in in_sequence(path)]
        for numbers in some_numbers(len(expected)):
            for number, pixels in zip(numbers, read(VideoRef(path=path), numbers), strict=True):
                assert np.array_equal(pixels, expected[number]), f"{name}, frame {number}"


def test_any_choice_of_real_frames_is_that_of_decoding_in_sequence(real_clips):
    for name in ("bikes", "carphone_pristine", "carphone_distorted"):
        expected = in_sequence(real_clips[name])
        for numbers in some_numbers(len(expected)):
            for number, pixels in zip(
                numbers, read(VideoRef(path=real_clips[name]), numbers), strict=True
            ):
                assert np.array_equal(pixels, expected[number]), f"{name}, frame {number}"


def test_clips_come_upright(made_clips):
    """The red corner, top left as stored, goes where the player would turn it:
    counter-clockwise."""
    corners = {
        "h264": (0, 0),
        "h264_turned_1": (-1, 0),
        "h264_turned_2": (-1, -1),
        "h264_turned_3": (0, -1),
    }
    for name, (row, column) in corners.items():
        [pixels] = read(VideoRef(path=made_clips[name]), [0])
        assert pixels.shape == ((64, 48, 3) if name in ON_ITS_SIDE else (48, 64, 3))
        red, green, blue = pixels[row, column].astype(int)
        assert red > 200
        assert max(green, blue) < 60


def test_a_mirrored_clip_comes_unmirrored(made_clips):
    data = bytearray(made_clips["h264"].read_bytes())
    [stored] = read(VideoRef(data=bytes(data)), [0])
    matrix = data.index(b"tkhd") + 4 + 40
    assert data[matrix : matrix + 4] == b"\0\1\0\0"
    data[matrix : matrix + 4] = b"\xff\xff\0\0"
    [pixels] = read(VideoRef(data=bytes(data)), [0])
    assert np.array_equal(pixels, stored[:, ::-1])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_clip_of_camera_jpegs_is_read_upright(orientation, make_camera_clip, tmp_path):
    """FFmpeg hands over their EXIF as a kind of side data that PyAV 18.1 has no name for."""
    ref = VideoRef(path=make_camera_clip(tmp_path / "a.avi", orientation=orientation))
    expected = open_rgb(camera_jpeg(3, orientation=orientation))
    [pixels] = read(ref, [3])
    assert pixels.shape == np.asarray(expected).shape
    assert distance(pixels, np.asarray(expected)) < 4
    assert (check_clip(ref).width, check_clip(ref).num_frames) == (expected.width, 5)


def test_a_frame_that_cannot_be_converted_is_named(made_clips, monkeypatch):
    ref = VideoRef(path=made_clips["h264"])
    for inside in (DecoderError("no such format"), KeyError("ours")):
        monkeypatch.setattr(clip_pyav, "to_rgb", lambda *_a, error=inside, **_b: _raise(error))
        if isinstance(inside, DecoderError):
            text = failure(read, ref, [5])
            assert "(its frame at 0.200 s cannot be shown: no such format)" in text
        else:
            with pytest.raises(KeyError, match="ours"):
                read(ref, [5])


def _raise(error: Exception) -> None:
    raise error


def test_a_file_its_bytes_and_a_part_of_a_tar_give_one_picture(made_clips, tmp_path):
    path = made_clips["h264"]
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(made_clips["ffv1"], "first.mkv")
        shard.add(path, "clip.mp4")
    with tarfile.open(tmp_path / "shard.tar") as shard:
        member = shard.getmember("clip.mp4")
    part = VideoRef(path=tmp_path / "shard.tar", span=(member.offset_data, member.size))
    expected = read(VideoRef(path=path), [3, 40])
    for ref in (VideoRef(data=path.read_bytes()), part):
        for backend in ("pyav", "decord"):
            for pixels, wanted in zip(read(ref, [3, 40], backend), expected, strict=True):
                assert np.array_equal(pixels, wanted)
        assert clip_key(ref) == clip_key(VideoRef(path=path))


def test_large_frames_are_scaled_while_they_are_converted(real_clips):
    ref = VideoRef(path=real_clips["bigbuckbunny"])
    numbers = [0, 60, 131]
    stored = read(ref, numbers)
    assert stored[0].shape == (720, 1280, 3)
    for backend in ("pyav", "decord"):
        small = read(ref, numbers, backend, max_side_px=512)
        for scaled, native, other in zip(small, stored, small[1:] + small[:1], strict=True):
            assert scaled.shape == (288, 512, 3)
            wanted = np.asarray(
                Image.fromarray(native).resize((512, 288), Image.Resampling.LANCZOS)
            )
            assert distance(scaled, wanted) < (1.5 if backend == "pyav" else 0.05)
            assert distance(scaled, wanted) < distance(scaled, other) / 5


def test_a_frame_on_its_side_is_scaled_by_its_upright_size(made_clips):
    [pixels] = read(VideoRef(path=made_clips["h264_turned_1"]), [7], max_side_px=32)
    assert pixels.shape == (32, 24, 3)
    wanted = Image.fromarray(read(VideoRef(path=made_clips["h264_turned_1"]), [7])[0]).resize(
        (24, 32), 1
    )
    assert distance(pixels, np.asarray(wanted)) < 6


# --- the other back ends
# -------------------------------------------------------------------------------------------


def test_decord_gives_the_same_frames_or_none(made_clips, real_clips):
    pytest.importorskip("decord", reason="decord is optional")
    clips = {
        **made_clips,
        "bikes": real_clips["bikes"],
        "carphone_pristine": real_clips["carphone_pristine"],
    }
    for name, path in clips.items():
        ref = VideoRef(path=path)
        count = len(read_index(ref).pts)
        numbers = [1, count // 3, count // 2, count - 2]
        if name in DECORD_CANNOT | ON_ITS_SIDE:
            text = failure(read, ref, numbers, "decord")
            assert "choose the video backend pyav" in text
            assert ("filmed on its side" in text) == (name in ON_ITS_SIDE)
            continue
        for ours, theirs in zip(read(ref, numbers), read(ref, numbers, "decord"), strict=True):
            assert np.array_equal(ours, theirs), name


TORCHCODEC_SCRIPT = """
import pickle, sys
from smolvlm.errors import SmolVLMError
from smolvlm.media.video.reader import read_frames
wanted = pickle.load(open(sys.argv[1], "rb"))
found = {}
for name, (ref, frames) in wanted.items():
    try:
        found[name] = list(read_frames(ref, frames, max_side_px=100_000, backend="torchcodec"))
    except SmolVLMError as error:
        found[name] = error
pickle.dump(found, open(sys.argv[2], "wb"))
"""


def ffmpeg_for_torchcodec(folder: Path) -> str:
    """A library path with the libraries that PyAV brings along, under the names that torchcodec
    looks for."""
    import av

    libraries = Path(av.__file__).parent.parent / "av.libs"
    for library in libraries.glob("lib*.so.*"):
        stem, version = library.name.split(".so.")
        (folder / f"{stem.rsplit('-', 1)[0]}.so.{version.split('.')[0]}").symlink_to(library)
    return f"{folder}:{libraries}"


def test_torchcodec_gives_the_same_frames_or_none(made_clips, real_clips, tmp_path, monkeypatch):
    """In a process of its own, which finds PyAV's FFmpeg where the system has none."""
    pytest.importorskip("torchcodec", reason="torchcodec is optional")
    clips = {
        **made_clips,
        "bikes": real_clips["bikes"],
        "carphone_pristine": real_clips["carphone_pristine"],
    }
    wanted = {}
    for name, path in clips.items():
        ref = (
            VideoRef(data=path.read_bytes())
            if name == "vp9"
            else VideoRef(path=path, span=(0, path.stat().st_size))
        )
        count = len(read_index(ref).pts)
        wanted[name] = ref, frames_of(ref, [1, count // 3, count // 2, count - 2])
    (tmp_path / "wanted").write_bytes(pickle.dumps(wanted))
    (tmp_path / "libraries").mkdir()
    monkeypatch.setenv("LD_LIBRARY_PATH", ffmpeg_for_torchcodec(tmp_path / "libraries"))
    command = [
        sys.executable,
        "-c",
        TORCHCODEC_SCRIPT,
        str(tmp_path / "wanted"),
        str(tmp_path / "found"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    found = pickle.loads((tmp_path / "found").read_bytes())
    for name, (ref, frames) in wanted.items():
        if isinstance(found[name], SampleError):
            assert name in TORCHCODEC_CANNOT, str(found[name])
            assert "choose the video backend pyav" in str(found[name])
            continue
        ours = read_frames(ref, frames, max_side_px=AS_STORED, backend="pyav")
        for pixels, theirs in zip(ours, found[name], strict=True):
            assert np.array_equal(pixels, theirs), name


@pytest.mark.parametrize("backend", ["decord", "torchcodec"])
def test_a_missing_package_is_named_with_its_extra(backend, made_clips, monkeypatch):
    for module in (backend, f"{backend}.decoders", f"{backend}._ffi.base"):
        monkeypatch.setitem(sys.modules, module, None)
    text = failure(read, VideoRef(path=made_clips["h264"]), [0], backend, kind=ConfigError)
    assert text == f'{backend} is not installed\n  fix: pip install "smolvlm[{backend}]"'


def test_a_frame_that_another_package_times_otherwise_is_refused(made_clips):
    ref = VideoRef(path=made_clips["h264"])
    index = read_index(ref)
    check = partial(clip_by_number._check_time, ref, index, 5, backend="decord")
    check(claimed_s=0.219)
    text = failure(check, claimed_s=0.221)
    assert "decord says that frame 5 of clip" in text
    assert "is shown at 0.221 s; its time stamps say 0.200 s" in text


# --- pictures, tiles, keys
# -----------------------------------------------------------------------------------------


def test_folders_and_lists_are_pictures(photos, tmp_path):
    for number, name in ((10, "coffee"), (2, "rocket"), (1, "on_its_side")):
        shutil.copy(photos[name], tmp_path / f"frame_{number}{photos[name].suffix}")
    folder = VideoRef(path=tmp_path, source_fps=2.0)
    listed = VideoRef(
        frames=tuple(ImageRef(path=photos[name]) for name in ("on_its_side", "rocket", "coffee"))
    )
    for ref in (folder, listed):
        assert [pixels.shape for pixels in read(ref, [0, 1, 2])] == [
            (90, 30, 3),
            (20, 96, 3),
            (50, 75, 3),
        ]
        assert [pixels.shape for pixels in read(ref, [1, 2], max_side_px=50)] == [
            (10, 50, 3),
            (34, 50, 3),
        ]
    assert clip_key(folder) == clip_key(listed)
    (tmp_path / "frame_2.jpg").write_bytes(photos["rocket"].read_bytes()[:-100])
    assert "frame_2.jpg is damaged or cut short" in failure(read, folder, [1])


def test_tiles_are_those_of_the_released_processor_to_the_bit(made_clips, real_clips):
    import torch
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    settings = TileSettings(tile_side_px=512, longest_edge_px=512, image_splitting=False)
    processor = SmolVLMVideoProcessor(
        size={"longest_edge": 512}, max_image_size={"longest_edge": 512}
    )
    for path in (made_clips["h264"], made_clips["h264_turned_1"], real_clips["carphone_pristine"]):
        ref = VideoRef(path=path)
        frames = frames_of(ref, [0, 17, 40])
        stored = torch.from_numpy(np.stack(read(ref, [0, 17, 40]))).permute(0, 3, 1, 2)
        released = processor(
            videos=[stored],
            do_rescale=False,
            do_normalize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )["pixel_values"][0]
        tiles = frame_tiles(ref, frames, settings, backend="pyav")
        assert tiles.shape == (3, 3, 512, 512)
        assert np.array_equal(tiles, released.numpy())


def test_frames_are_never_cut(made_clips):
    settings = TileSettings(tile_side_px=32, longest_edge_px=64, image_splitting=True)
    ref = VideoRef(path=made_clips["h264"])
    with pytest.raises(ValueError, match="a frame is never cut"):
        frame_tiles(ref, frames_of(ref, [0]), settings, backend="pyav")


def test_keys_name_the_bytes(made_clips, tmp_path):
    path = tmp_path / "clip"
    keys = set()
    for name in ("h264", "vp9", "h264"):
        shutil.copy(made_clips[name], path)
        keys.add(clip_key(VideoRef(path=path)))
        assert clip_key(VideoRef(path=path)) == content_key(path.read_bytes())
    assert len(keys) == 2
    one, other = (ImageRef(data=data) for data in (b"one", b"other"))
    assert (
        len({clip_key(VideoRef(frames=frames)) for frames in ((one, other), (other, one), (one,))})
        == 3
    )
    assert "none.mp4 does not exist" in failure(clip_key, VideoRef(path=tmp_path / "none.mp4"))


# --- what goes wrong
# -----------------------------------------------------------------------------------------------


def test_a_clip_that_changed_since_its_frames_were_chosen_is_refused(made_clips, tmp_path):
    path = tmp_path / "clip.mp4"
    shutil.copy(made_clips["h264"], path)
    frames = frames_of(VideoRef(path=path), [3, 12])
    shutil.copy(made_clips["h264_uneven"], path)
    text = failure(
        lambda: list(read_frames(VideoRef(path=path), frames, max_side_px=64, backend="pyav"))
    )
    assert "clip.mp4 does not have the frames chosen from it: it changed since then" in text


def test_a_frame_that_cannot_be_decoded_is_named_by_its_time(made_clips):
    """The frame at 1 s is overwritten; those before its group, and those after, still come."""
    import av

    path = made_clips["h264"]
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux(video=0) if packet.pts == 25 * 512)
        start, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[start : start + size] = b"\xff" * size
    ref = VideoRef(data=bytes(data))
    assert len(read(ref, [2, 20, 50])) == 3
    assert "is damaged or cut short (its frame at 1.000 s cannot be decoded)" in failure(
        read, ref, [2, 25, 50]
    )


def test_a_few_frames_of_a_long_clip_take_the_memory_of_a_few_frames(real_clips):
    """Neither Python's memory nor the process's grows with the clip: a whole one would take 130 MB
    as numbers."""
    ref = VideoRef(path=real_clips["bikes"])
    frames = choose_frames(read_index(ref), FrameSettings(fps=25, max_frames=250, sampling="fps"))
    one_frame = 640 * 272 * 3
    tracemalloc.start()
    try:
        for pixels in read_frames(ref, frames, max_side_px=AS_STORED, backend="pyav"):
            assert pixels.nbytes == one_frame
        assert tracemalloc.get_traced_memory()[1] < 6 * one_frame
    finally:
        tracemalloc.stop()


FORK_SCRIPT = """
import os, sys
from pathlib import Path
from smolvlm.media.video.index import read_index
from smolvlm.media.video.frames import FrameSettings, choose_frames
from smolvlm.media.video.reader import read_frames
from smolvlm.records import VideoRef
ref = VideoRef(path=Path(sys.argv[1]))
settings = FrameSettings(fps=5, max_frames=64, sampling="fps")
def read():
    frames = choose_frames(read_index(ref), settings)
    return len(list(read_frames(ref, frames, max_side_px=320, backend="pyav")))
read()
child = os.fork()
if child == 0:
    os._exit(read())
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == read() == 50
"""


def test_a_process_forked_after_decoding_decodes_too(real_clips):
    command = [sys.executable, "-c", FORK_SCRIPT, str(real_clips["bikes"])]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def test_a_reader_that_is_left_half_way_closes_its_file(made_clips):
    import os

    before = len(os.listdir("/proc/self/fd"))
    ref = VideoRef(path=made_clips["h264"])
    reader = read_frames(ref, frames_of(ref, [1, 2, 50]), max_side_px=64, backend="pyav")
    next(reader)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    del reader
    assert len(os.listdir("/proc/self/fd")) == before
