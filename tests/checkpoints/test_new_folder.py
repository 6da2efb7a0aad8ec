"""Where a new checkpoint is written to."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smolvlm.checkpoints.new_folder import check_new_folder, new_folder
from smolvlm.disk.atomic_files import making_folder
from smolvlm.errors import ConfigError


def test_a_folder_is_new_or_empty(tmp_path: Path) -> None:
    check_new_folder(tmp_path / "new")
    check_new_folder(tmp_path)
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(
            ConfigError, match="there is something in it already\n  fix: give --out another folder"
        ):
            check_new_folder(path)


KILLED = """
import os, signal, sys
from pathlib import Path
from smolvlm.checkpoints.new_folder import new_folder
with new_folder(Path(sys.argv[1])) as folder:
    (folder / "config.json").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_is_there_whole_or_not_at_all_and_a_killed_try_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not out.exists()
    assert len(list(out.parent.iterdir())) == 2, "its lock, and what it wrote"
    with new_folder(out) as folder:
        (folder / "config.json").write_text("whole")
        assert not out.exists()
    assert (out / "config.json").read_text() == "whole"
    assert list(out.parent.iterdir()) == [out]


def write_half(out: Path) -> None:
    with new_folder(out) as folder:
        (folder / "half").touch()
        raise KeyError


def test_one_that_raises_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        with pytest.raises(KeyError):
            write_half(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_a_mounted_folder_is_filled_from_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: self == out)
    with new_folder(out) as folder:
        assert folder.is_relative_to(out)
        (folder / "config.json").touch()
    assert [path.name for path in out.iterdir()] == ["config.json"]


def test_what_is_there_is_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with making_folder(tmp_path / "out") as folder:
            (folder / text).touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["second"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
