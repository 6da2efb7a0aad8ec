"""The comparison with the released processor runs, and says so where the pixels differ."""

import pytest

from benchmarks import loading


def test_pixels_are_compared_and_every_line_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert loading.main(["--rounds", "1", "--width", "600"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("largest difference of a pixel value") == 2 if loading.DEFAULT_BACKEND == "torch" else 1
    assert "13 tiles of 512 px, one core; 600 px wide, 1 rounds" in " ".join(printed.split())
    for name in loading.systems():
        assert name in printed


def test_pixels_that_differ_are_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "pixel_differences", lambda _: {"torch": 1 / 127.5})
    monkeypatch.setattr(loading, "systems", lambda: {loading.OURS: lambda _: None})
    assert loading.main(["--rounds", "1", "--width", "8"]) == loading.EXIT_PIXELS_DIFFER
    assert "7.8e-03" in capsys.readouterr().out
