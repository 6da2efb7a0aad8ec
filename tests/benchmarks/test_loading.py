"""The comparison with the released processor runs, and says so where the pixels differ."""

import shutil
from pathlib import Path

import pytest

from benchmarks import frames, loading


def test_pixels_are_compared_and_every_line_is_there(
    clips: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert loading.main(["--rounds", "1", "--width", "600", "--clip", str(clips["steady"])]) == 0
    printed = capsys.readouterr().out
    assert (
        printed.count("largest difference of a pixel value") == 2
        if loading.DEFAULT_BACKEND == "torch"
        else 1
    )
    assert "13 tiles of 512 px, one core; 600 px wide, 1 rounds" in " ".join(printed.split())
    for name in loading.systems():
        assert name in printed
    assert "3 frames: 1 frame a second, 1 rounds" in " ".join(printed.split())
    assert printed.count("times differ by 0.0e+00 s at most, pixels by 0.00 of 255") == len(
        frames.JOBS
    )
    for name in (frames.OURS_AS_FLOATS, frames.BY_PYAV, frames.BY_DECORD):
        assert printed.count(name) >= len(frames.JOBS)


def test_pixels_that_differ_are_an_exit_status(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "pixel_differences", lambda _: {"torch": 1 / 127.5})
    monkeypatch.setattr(loading, "systems", lambda: {loading.OURS: lambda _: None})
    monkeypatch.setattr(frames, "clip_systems", lambda *_: {frames.OURS: lambda: None})
    arguments = ["--rounds", "1", "--width", "8", "--clip", str(clips["steady"])]
    assert loading.main(arguments) == loading.EXIT_PIXELS_DIFFER
    assert "7.8e-03" in capsys.readouterr().out


def test_frames_of_other_times_are_an_exit_status(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "pixel_differences", lambda _: {"torch": 0.0})
    monkeypatch.setattr(loading, "systems", lambda: {loading.OURS: lambda _: None})
    monkeypatch.setattr(frames, "clip_systems", lambda *_: {frames.OURS: lambda: None})
    monkeypatch.setattr(frames, "largest_time_difference_s", lambda *_: 0.04)
    arguments = ["--rounds", "1", "--width", "8", "--clip", str(clips["steady"])]
    assert loading.main(arguments) == loading.EXIT_PIXELS_DIFFER


def test_ours_gives_the_frames_that_the_released_processor_gives(
    clips: dict[str, Path], tmp_path: Path
) -> None:
    clip = Path(shutil.copy(clips["uneven"], tmp_path))
    for job in frames.JOBS:
        assert frames.largest_time_difference_s(clip, job) == 0
        assert (
            frames.mean_pixel_difference(clip, job) < 1e-3
        )  # no larger than a tile: nothing is scaled down
