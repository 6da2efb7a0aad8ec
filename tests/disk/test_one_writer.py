"""Two processes never write to one folder, and a dead one keeps nobody out."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smolvlm.disk.one_writer import LOCK, only_maker, only_writer
from smolvlm.errors import ConfigError

HOLDER = """
import os, sys, time
from pathlib import Path
from smolvlm.disk.one_writer import only_maker, only_writer
keep = {"writer": only_writer, "maker": only_maker}[sys.argv[1]]
with keep(Path(sys.argv[2]), where="held"):
    if os.fork() == 0:
        print(os.getpid(), flush=True)  # as a loader's worker: it outlives a killed parent
    time.sleep(600)
"""


@contextmanager
def another(kind: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a folder, and a forked child of it that goes on living."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, kind, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        os.kill(child, signal.SIGKILL)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smolvlm.disk.one_writer.PATIENCE_S", 0.2)


@pytest.mark.parametrize("kind", ["writer", "maker"])
def test_the_second_is_refused_by_name_and_a_killed_one_leaves_no_lock(
    tmp_path: Path, kind: str
) -> None:
    keep = {"writer": only_writer, "maker": only_maker}[kind]
    with another(kind, tmp_path / "out") as holder:
        with (
            pytest.raises(ConfigError) as refused,
            keep(tmp_path / "out", where="train.output_dir"),
        ):
            pass
        who = f"process {holder.pid} on {socket.gethostname()} (since "
        assert str(refused.value).startswith(f"train.output_dir: {who}")
        assert refused.value.fix is not None
        holder.kill()
        holder.wait()
        with keep(tmp_path / "out", where=""):
            pass
    assert [path for path in tmp_path.rglob("*") if path.name != "out"] == []


def test_a_lock_says_whose_it_is_and_goes_with_its_context(tmp_path: Path) -> None:
    with only_writer(tmp_path / "a" / "out", where=""):
        holder = json.loads((tmp_path / "a" / "out" / LOCK).read_text())
        assert holder["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == [], "folders that were made for nothing are gone"
    with only_writer(tmp_path / "a" / "out", where=""):
        (tmp_path / "a" / "out" / "run.yaml").touch()
    assert [path.name for path in (tmp_path / "a" / "out").iterdir()] == ["run.yaml"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}'])
def test_what_a_dead_process_wrote_decides_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / LOCK).write_text(text)
    with only_writer(tmp_path, where=""):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(ConfigError, match="another process writes here"):
            only_writer(tmp_path, where="").__enter__()


def test_a_folder_that_cannot_be_made_beside_is_made_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda self: self == tmp_path / "out")
    with only_maker(tmp_path / "out", where=""):
        assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK]


def test_without_locks_it_is_said_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolvlm.disk.file_lock.fcntl", None)
    notes: list[str] = []
    with only_writer(tmp_path / "out", where="", say=notes.append):
        pass
    assert notes == [
        "note: this file system has no locks (this system has no file locks), so nothing keeps a "
        f"second run out of {tmp_path / 'out'}"
    ]
