"""One writer a folder: a second run, export or build there is refused while the first lives.

In: a folder. Out: a context in which no other process may write to it. A file in the folder, or
beside one that is still to be made, is locked by the kernel (`file_lock.py`) and says who has it:
process, machine, since when, for the person who reads the refusal. Nothing is decided by what it
says, so a lock of a dead process, or of a container that is gone, keeps nobody out.

Only writers come here. What reads a run (`eval`, `report`, `inspect`, `check`) takes no lock.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smolvlm.disk.atomic_files import place_beside, sync_folder
from smolvlm.disk.file_lock import FileLock, LocksUnavailableError, try_lock
from smolvlm.errors import ConfigError

LOCK = ".smolvlm.lock"
"""In a run's folder."""
PATIENCE_S = 2.0
"""A process that was killed a moment ago keeps its lock until the system has cleared it away."""
_NO_LOCKS = (
    "note: this file system has no locks ({why}), so nothing keeps a second run out of {folder}"
)


@contextmanager
def only_writer(
    folder: Path, *, where: str, say: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Be the only writer of a folder; it is made, and deleted again if nothing was put into it.

    Args:
        folder: of a run.
        where: the setting that names it, for the refusal.
        say: told where there are no locks.

    Raises:
        ConfigError: another process writes there.
        OSError: the folder cannot be made or written to.
    """
    with _made(folder.absolute()), _locked(folder / LOCK, where=where, say=say):
        yield


@contextmanager
def only_maker(
    folder: Path, *, where: str, say: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """Be the only one who makes a folder; the lock lies beside it, in its parent, which is made.

    Raises:
        ConfigError: another process makes it.
        OSError: nothing can be written beside it.
    """
    folder = folder.absolute()
    with _made(folder.parent):
        place = place_beside(folder)
        lock = place / (LOCK if place == folder else f".{folder.name}{LOCK}")
        with _locked(lock, where=where, say=say):
            yield


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and its parents; delete at the end those that were made and are empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in new:  # else a power cut could take the folder with all that is synced in it
        sync_folder(path.parent)
    try:
        yield
    finally:
        for path in new:
            try:
                path.rmdir()
            except OSError:
                break


@contextmanager
def _locked(path: Path, *, where: str, say: Callable[[str], None]) -> Iterator[None]:
    try:
        lock = _patient_lock(path)
    except LocksUnavailableError as error:
        say(_NO_LOCKS.format(why=error.strerror, folder=path.parent))
        yield
        return
    if lock is None:
        raise ConfigError(
            f"{_holder(path)} writes here",
            where=where,
            fix="wait until it is done or end it, or choose another folder",
        )
    try:
        _describe(lock)
        yield
    finally:
        lock.remove()


def _patient_lock(path: Path) -> FileLock | None:
    end = time.monotonic() + PATIENCE_S
    while (lock := try_lock(path)) is None and time.monotonic() < end:
        time.sleep(0.05)
    return lock


def _describe(lock: FileLock) -> None:
    """Write into a lock file who has it."""
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    os.ftruncate(lock.descriptor, 0)
    os.pwrite(lock.descriptor, json.dumps(holder).encode(), 0)


def _holder(path: Path) -> str:
    """Return who has a lock, as its file says."""
    try:
        holder: Any = json.loads(path.read_text(encoding="utf-8"))
        return f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it is just being written
        return "another process"
