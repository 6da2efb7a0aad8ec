"""A disk's times are measured where the features are to lie, and nothing is left there."""

from pathlib import Path

from smolvlm.model.feature_timing import disk_times


def test_times_are_positive_and_nothing_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    times = disk_times(folder, 73_728)
    assert times is not None
    assert times.write_s > 0
    assert times.read_s > 0
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_has_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert disk_times(tmp_path / "file" / "cache", 1000) is None
