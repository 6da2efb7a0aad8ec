"""`smolvlm.media.video.walk`: the frames of decoding in sequence, few others decoded."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from smolvlm.errors import SampleError
from smolvlm.media.video import walk as clip_walk
from smolvlm.media.video.index import scan_clip
from smolvlm.media.video.walk import chosen_frames, jump_targets
from smolvlm.records import VideoRef
from tests.media.conftest import QUIET_X265, MakeClip, Recipe

REORDERED = "scenecut=0:bframes=3:b-adapt=0:b-pyramid=normal"
RAGGED = tuple(np.cumsum(np.random.default_rng(3).integers(1, 9, 60)).tolist())


def x264(more: str = "") -> dict[str, str]:
    return {"x264-params": f"{REORDERED}{more}"}


KINDS = {
    "mp4": Recipe(suffix="mp4", codec="libx264", options=x264()),
    "mkv, open groups": Recipe(suffix="mkv", codec="libx264", options=x264(":open-gop=1")),
    "mp4, open groups": Recipe(suffix="mp4", codec="libx264", options=x264(":open-gop=1")),
    "mp4, uneven and late": Recipe(
        suffix="mp4",
        codec="libx264",
        times=tuple(700 + time for time in RAGGED),
        time_base=Fraction(1, 100),
        options=x264(),
    ),
    "mp4, interlaced": Recipe(suffix="mp4", codec="libx264", options=x264(":tff=1")),
    "mkv, interlaced": Recipe(suffix="mkv", codec="libx264", options=x264(":bff=1")),
    "mkv, hevc": Recipe(suffix="mkv", codec="libx265", options=QUIET_X265),
    "webm": Recipe(suffix="webm", codec="libvpx-vp9", options={"auto-alt-ref": "1"}),
    "mp4, mpeg4": Recipe(suffix="mp4", codec="mpeg4", options={"bf": "2"}),
    "mkv, mpeg2": Recipe(suffix="mkv", codec="mpeg2video", options={"bf": "2"}),
}
GROUPS = (1, 2, 7, 30, 250)


def in_sequence(path: Path) -> dict[int, np.ndarray]:
    import av

    with av.open(str(path)) as container:
        return {
            frame.pts or 0: frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)
        }


def choices(count: int) -> list[list[int]]:
    """Every frame, each step from 2 to half the clip, and some drawn."""
    random = np.random.default_rng(count)
    steps = [list(range(step // 3, count, step)) for step in (1, 2, 3, 5, 8, 13, 29)]
    return steps + [sorted(random.choice(count, 4, replace=False).tolist()) for _ in range(6)]


def check(path: Path, label: str) -> None:
    ref, expected = VideoRef(path=path), in_sequence(path)
    scan = scan_clip(ref)
    assert scan.index.pts.tolist() == sorted(expected), label
    for numbers in choices(len(expected)):
        found = [
            (frame.pts, frame.to_ndarray(format="rgb24"))
            for frame in chosen_frames(ref, scan, numbers)
        ]
        assert [pts for pts, _ in found] == scan.index.pts[numbers].tolist(), label
        for pts, pixels in found:
            assert np.array_equal(pixels, expected[pts]), f"{label}, frame at {pts}"


class Counts:
    """What was done to a clip."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.openings = self.jumps = self.packets = 0
        opened, jump, decoded = clip_walk.open_clip, clip_walk._Walk._jump, clip_walk._Walk._decoded

        def count_opening(*arguments, **options):
            self.openings += 1
            return opened(*arguments, **options)

        def count_jump(walk, keyframe):
            self.jumps += 1
            return jump(walk, keyframe)

        def count_packet(walk, packet):
            self.packets += 1
            return decoded(walk, packet)

        monkeypatch.setattr(clip_walk, "open_clip", count_opening)
        monkeypatch.setattr(clip_walk._Walk, "_jump", count_jump)
        monkeypatch.setattr(clip_walk._Walk, "_decoded", count_packet)


def read(path: Path, numbers: Sequence[int]) -> list[int | None]:
    ref = VideoRef(path=path)
    return [frame.pts for frame in chosen_frames(ref, scan_clip(ref), numbers)]


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_those_of_decoding_in_sequence(kind, make_clip: MakeClip, tmp_path):
    recipe = KINDS[kind]
    for group in GROUPS:
        made = Recipe(**{**vars(recipe), "keyframe_every": group})
        path = make_clip(tmp_path / f"{group}.{recipe.suffix}", made)
        check(path, f"{kind}, groups of {group}")


def test_a_keyframe_alone_is_decoded_where_keyframes_alone_are_wanted(
    make_clip: MakeClip, tmp_path, monkeypatch
):
    recipe = Recipe(suffix="mp4", codec="libx264", keyframe_every=10, options=x264())
    path = make_clip(tmp_path / "clip.mp4", recipe)
    counts = Counts(monkeypatch)
    assert (
        read(path, [0, 10, 20, 40])
        == scan_clip(VideoRef(path=path)).keyframe_pts[[0, 1, 2, 4]].tolist()
    )
    assert (counts.openings, counts.jumps, counts.packets) == (1, 3, 4)


def test_an_interlaced_frame_is_never_taken_out_early(make_clip: MakeClip, tmp_path, monkeypatch):
    """Its other field might be in the next packet."""
    recipe = Recipe(suffix="mkv", codec="libx264", keyframe_every=10, options=x264(":tff=1"))
    path = make_clip(tmp_path / "clip.mkv", recipe)
    counts = Counts(monkeypatch)
    assert len(read(path, [0, 10, 20])) == 3
    assert counts.openings == 2


def test_frames_that_come_in_another_order_are_read_as_ffmpeg_examines_them(
    made_clips, monkeypatch
):
    """As where a decoder learns only on the way that frames are reordered."""
    path = made_clips["h264"]
    expected = in_sequence(path)
    rest = clip_walk._Walk._rest
    monkeypatch.setattr(clip_walk._Walk, "_rest", lambda walk: reversed(list(rest(walk))[:0]))
    counts = Counts(monkeypatch)
    assert read(path, [5, 30, 55]) == [sorted(expected)[number] for number in (5, 30, 55)]
    assert counts.openings == 2
    assert counts.jumps >= 2


def test_a_clip_cut_in_the_middle_names_the_frame_that_is_lost(made_clips, tmp_path, monkeypatch):
    data = made_clips["h264_header_first"].read_bytes()
    ref = VideoRef(path=made_clips["h264_header_first"])
    scan = scan_clip(ref)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: len(data) * 2 // 3])
    counts = Counts(monkeypatch)
    with pytest.raises(SampleError, match=r"its frame at 2\.360 s cannot be decoded"):
        list(chosen_frames(VideoRef(path=cut), scan, [0, 59]))
    assert counts.openings == len(clip_walk._MODES)


def test_targets_leave_a_frame_out():
    shown, keyframes = np.arange(60), np.arange(0, 60, 10)
    assert jump_targets(shown, keyframes, [3, 10, 35, 36]) == {10: 1, 35: 3}
    assert jump_targets(shown, keyframes, [9, 10, 35]) == {35: 3}
    assert jump_targets(shown, keyframes, [25]) == {25: 2}
    assert jump_targets(shown, np.arange(60), range(60)) == {}
    assert jump_targets(shown, np.array([0]), [5, 50]) == {}
