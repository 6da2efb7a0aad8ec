"""Files that are there whole or not at all, also after a killed process and a power cut.

In: a path and what it is to hold. Out: the file, written beside its place under a random name,
synced and renamed: a reader finds the former content or the new one. Lines are appended in one
write. The one place that decides this; everything that people or later runs read goes through it.

A temporary file or folder is locked by its writer (`file_lock.py`). One that can be locked was left
by a process that died, and is deleted by the next who writes the same file. Names hold no process
number, which two containers share.
"""

import errno
import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smolvlm.disk.file_lock import FileLock, LocksUnavailableError, try_lock
from smolvlm.disk.system_errors import os_errors_of

_NO_FOLDER_SYNC = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS})
SUFFIX = ".tmp"
"""Ends the name of every temporary file; it begins with a dot and the file's own name."""
_LOCK = "lock"
"""In a temporary folder."""


@contextmanager
def replacing(path: Path, *, is_synced: bool = True) -> Iterator[Path]:
    """Yield the name of an empty file beside `path`; what it holds at the end takes its place.

    Where the block raises, `path` stays as it was. A link is followed; a pipe or a device is
    written itself.

    Args:
        path: in a folder that exists.
        is_synced: whether the content is on the disk before the block is left. What can be made
            again does without.

    Raises:
        OSError: it cannot be written.
    """
    if path.exists() and not path.is_file():
        yield path
        return
    path = Path(os.path.realpath(path))
    remove_leftovers(path)
    temporary, lock = _temporary(path)
    try:
        yield temporary
        if is_synced:
            sync_file(temporary)
        temporary.replace(path)
    except OSError as error:
        if error.filename in (None, str(temporary)):
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)
        if lock is not None:
            lock.release()
    if is_synced:
        sync_folder(path.parent)


@contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder; it becomes `path` at the end, synced, in place of what is there.

    It is made beside `path`, or in it where only that can be: a mounted disk, or a parent that may
    not be written to. Where the block raises, `path` stays as it was.

    Args:
        path: in a folder that exists.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(os.path.realpath(path))
    with working_folder(path) as work:
        folder = work / "new"
        folder.mkdir()
        try:
            with os_errors_of(path):
                yield folder
            sync_tree(folder)
            if work.parent == path:
                for child in sorted(folder.iterdir()):
                    child.replace(path / child.name)
            else:
                _put(folder, path, former=work)
        except OSError as error:
            if str(error.filename).startswith(str(folder)):  # its place is what a person knows
                error.filename = str(path) + str(error.filename)[len(str(folder)) :]
            raise
    sync_folder(path)
    sync_folder(path.parent)


@contextmanager
def working_folder(path: Path) -> Iterator[Path]:
    """Yield a folder beside `path` that is there while the block runs; those of the dead go.

    Raises:
        OSError: it cannot be made.
    """
    remove_leftovers(path)
    work = _temporary_folder(path)
    lock = _lock_or_none(work / _LOCK)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if lock is not None:
            lock.release()


def place_beside(path: Path) -> Path:
    """Return the folder for what belongs to a new folder until it is there: mostly its parent."""
    is_inside = path.is_dir() and (path.is_mount() or not os.access(path.parent, os.W_OK | os.X_OK))
    return path if is_inside else path.parent


def is_temporary(name: str) -> bool:
    """Say whether a file name is one that is given here until the file has its place."""
    return name.startswith(".") and name.endswith(SUFFIX)


def write_text(path: Path, text: str) -> None:
    """Replace a file's text (UTF-8, line ends as they are); raises OSError."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.write(text)


def write_json(path: Path, content: object) -> None:
    """Replace a JSON file; raises OSError."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def append_line(path: Path, line: str) -> None:
    """Append a line in one write; where only a part of it fits on the disk, none of it stays.

    Raises:
        OSError: it cannot be written.
    """
    data = f"{line}\n".encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(descriptor).st_size
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError:
            os.ftruncate(descriptor, size)
            raise
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)


def remove_leftovers(path: Path) -> None:
    """Delete temporary files and folders of `path` whose writers died; without file locks none."""
    _remove_dead(place_beside(path), f".{glob.escape(path.name)}.*{SUFFIX}")


def remove_leftovers_in(folder: Path) -> None:
    """Delete temporary files and folders in a folder whose writers died, of whatever file."""
    _remove_dead(folder, f".*{SUFFIX}")


def _remove_dead(folder: Path, pattern: str) -> None:
    for name in glob.glob(pattern, root_dir=folder):
        leftover = folder / name
        is_folder = leftover.is_dir()
        lock = _lock_or_none(leftover / _LOCK if is_folder else leftover)
        if lock is not None and is_folder:
            shutil.rmtree(leftover, ignore_errors=True)
        if lock is not None:
            lock.remove()


def sync_file(path: Path) -> None:
    """Return once a file's content is on the disk; raises OSError with its name."""
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            error.filename = error.filename or str(path)
            raise


def sync_folder(path: Path) -> None:
    """Return once the names in a folder are on the disk, where folders can be synced."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows, or a folder that is written but not listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in _NO_FOLDER_SYNC:
            return
        error.filename = error.filename or str(path)
        raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Return once all files below a folder, their names and its own name are on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            sync_file(Path(place, name))
        sync_folder(Path(place))
    sync_folder(folder.absolute().parent)


def _temporary(path: Path) -> tuple[Path, FileLock | None]:
    """Make an empty temporary file for a path, locked where there are locks."""
    while True:
        temporary = path.with_name(_temporary_name(path))
        try:
            return temporary, try_lock(temporary, is_new=True)
        except FileExistsError:
            continue
        except LocksUnavailableError:
            temporary.touch()
            return temporary, None
        except OSError as error:
            error.filename = str(path)
            raise


def _temporary_folder(path: Path) -> Path:
    while True:
        folder = place_beside(path) / _temporary_name(path)
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            continue
        except OSError as error:
            error.filename = str(path)
            raise


def _put(folder: Path, path: Path, *, former: Path) -> None:
    """Rename a folder to `path`; what is there, of another process too, goes into `former`."""
    while True:
        if path.exists():
            path.rename(former / secrets.token_hex(6))
        try:
            folder.rename(path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _temporary_name(path: Path) -> str:
    return f".{path.name}.{secrets.token_hex(6)}{SUFFIX}"


def _lock_or_none(path: Path) -> FileLock | None:
    """Lock a file; None where another has it, or nobody can."""
    try:
        return try_lock(path)
    except OSError:
        return None
