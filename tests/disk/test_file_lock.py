"""A lock lasts as long as the process that took it, and no child of it keeps it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from smolvlm.disk.file_lock import LocksUnavailableError, try_lock

HOLDER = """
import os, sys, time
from pathlib import Path
from smolvlm.disk.file_lock import try_lock
lock = try_lock(Path(sys.argv[1]))
assert lock is not None
child = os.fork()
if child == 0:
    print(os.getpid(), flush=True)
time.sleep(600)
"""


def test_a_killed_holder_has_no_lock_though_its_forked_worker_lives(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        assert try_lock(file) is None
        holder.kill()
        holder.wait()
        os.kill(child, 0)
        lock = try_lock(file)
        assert lock is not None
        assert try_lock(file) is None, "nor may this process have it twice"
        lock.release()
        lock.release()
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_a_child_that_ends_does_not_take_the_lock_with_it(tmp_path: Path) -> None:
    lock = try_lock(tmp_path / "lock")
    assert lock is not None
    if (child := os.fork()) == 0:
        lock.release()
        lock.remove()
        os._exit(0)
    os.waitpid(child, 0)
    assert try_lock(tmp_path / "lock") is None
    lock.remove()
    assert not (tmp_path / "lock").exists()


def test_a_new_file_is_not_an_old_one(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    with pytest.raises(FileExistsError):
        try_lock(tmp_path / "there", is_new=True)


def test_a_system_without_locks_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smolvlm.disk.file_lock.fcntl", None)
    with pytest.raises(LocksUnavailableError):
        try_lock(tmp_path / "lock")
