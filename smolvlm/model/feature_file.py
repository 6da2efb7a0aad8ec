"""An LMDB file of the vision cache: opened once a process, made anew where it is damaged, done
without where it cannot be used.

In: a path. Out: an environment, or None. A cache costs time when it is lost and nothing else, so
nothing here ends a run: what is wrong is said in a line (`notices.py`), and features are computed
as if they had never been kept.

LMDB maps the file, and reading a mapped page behind the file's end kills the process (SIGBUS). So
the file is held against the length that its own header gives before anything is read; and the
table of readers, which is mapped too, is given its place on the disk before it is opened. LMDB does
not write pages at the end that it took and gave back, so a file may lack a few and be whole: it is
filled up, and an entry that was really cut off there fails its digest.
"""

import os
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import lmdb

from smolvlm.disk.atomic_files import SUFFIX, remove_leftovers
from smolvlm.disk.disk_space import NO_SPACE, is_full
from smolvlm.notices import notice

DATA = "data.mdb"
"""The name that LMDB gives what it writes, in a folder of its own."""
LOCK = "lock.mdb"
"""Likewise, for who reads and writes."""
MAX_READERS = 512
_LOCK_BYTES = 64 * MAX_READERS + 4096
MAP_BYTES = (1 << 40, 1 << 37, 1 << 34, 1 << 31)
"""Address space reserved for the map: the first that the process is given. The file grows only as
it fills. A limit on a process's memory (`ulimit -v`) counts such maps, and of the largest a process
has room for 127."""
MAX_LOOSE_PAGES = 64
"""Pages that a whole file may lack at its end; more were cut off."""
_DAMAGE = (
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
)


class _CutOffError(Exception):
    """The file ends before its pages do."""


@dataclass(slots=True)
class _OpenFile:
    """What this process has of a file; LMDB wants it opened once a process."""

    process: int
    environment: lmdb.Environment | None
    """None: it cannot be used."""
    is_written: bool = True
    was_renewed: bool = False
    damage: lmdb.Error | None = None
    """Found while it was written to; it is made anew where nobody reads it."""
    inode: int | None = None
    """Of its data."""


_OPEN: dict[Path, _OpenFile] = {}
_OPENING = threading.RLock()
"""The step reads while a thread writes, and of one file only one of them may open it."""


def _begin_anew_in_child() -> None:
    global _OPENING  # one that another thread had is never freed in a fork
    _OPENING = threading.RLock()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_begin_anew_in_child)


def environment_of(path: Path) -> lmdb.Environment | None:
    """Return this process's environment of a file, opened on first use; None where it has none."""
    return _open_file(path).environment


def is_damaged(path: Path) -> bool:
    """Say whether damage was met while a file was written to."""
    return _open_file(path).damage is not None


def is_written(path: Path) -> bool:
    """Say whether this process still writes to a file."""
    return _open_file(path).is_written


def stop_writing(path: Path, error: lmdb.Error) -> None:
    """Write no more, since that failed; a damaged file is made anew at the next `renew`."""
    file = _open_file(path)
    file.is_written = False
    if isinstance(error, _DAMAGE):
        file.damage = error
        return
    why = NO_SPACE if is_full(path) else _reason(error)  # of a write cut short LMDB says EIO
    notice(f"{path} takes no more features ({why}): others are computed each time")


def renew(path: Path, error: lmdb.Error | None = None) -> None:
    """Make a file anew that is damaged; the second time, do without.

    Nothing of it may be in use by this process.

    Args:
        error: met while it was read; None is what was met while it was written to, if anything.
    """
    file = _open_file(path)
    error = error or file.damage
    if file.environment is None or error is None:
        return
    file.environment.close()
    if file.was_renewed or not _discard(path, _reason(error)):
        _OPEN[path] = _OpenFile(os.getpid(), None, is_written=False)
    else:
        _OPEN[path] = _opened(path)
        _OPEN[path].was_renewed = True


def is_gone(path: Path) -> bool:
    """Say whether a file that this process has open was removed, or is another file now."""
    file = _OPEN.get(path)
    return file is not None and file.inode is not None and file.inode != _inode(path)


def close(path: Path) -> None:
    """Close this process's environment; the next use opens it again."""
    file = _OPEN.pop(path, None)
    if file is not None and file.environment is not None and file.process == os.getpid():
        file.environment.close()


def _open_file(path: Path) -> _OpenFile:
    with _OPENING:
        file = _OPEN.get(path)
        if file is not None and file.process == os.getpid():
            return file
        if file is not None and file.environment is not None:
            file.environment.close()  # inherited over a fork, where it must not be used
        file = _OPEN[path] = _opened(path)
        return file


def _inode(path: Path) -> int | None:
    try:
        return (path / DATA).stat().st_ino
    except OSError:
        return None


def _opened(path: Path) -> _OpenFile:
    """Open a file, made anew where it is damaged."""
    damage = ""
    for _ in range(2):
        try:
            environment = _checked(path)
            return _OpenFile(os.getpid(), environment, inode=_inode(path))
        except (*_DAMAGE, _CutOffError, FileExistsError, NotADirectoryError) as error:
            damage = _reason(error)
            if not _discard(path, damage):
                break
        except (lmdb.Error, OSError) as error:
            damage = _reason(error)
            break
    notice(f"{path} cannot be used ({damage}): features are computed each time")
    return _OpenFile(os.getpid(), None, is_written=False)


def _checked(path: Path) -> lmdb.Environment:
    """Open a file and hold its length against its header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    path.mkdir(exist_ok=True)
    environment = _mapped(path)
    try:
        environment.reader_check()  # a killed reader would keep pages from being used again
        _fill_up(environment, path / DATA)
    except BaseException:
        environment.close()
        raise
    return environment


def _reserve_lock(path: Path) -> None:
    """Let the table of readers take its place on the disk, which a full one refuses here and not
    by a signal."""
    if not hasattr(os, "posix_fallocate"):  # as on macOS and Windows
        return
    file = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.posix_fallocate(file, 0, _LOCK_BYTES)
    finally:
        os.close(file)


def _mapped(path: Path) -> lmdb.Environment:
    _reserve_lock(path)
    for map_bytes in MAP_BYTES:
        try:
            # Read ahead: an entry is some 20 to 400 pages, which would come from the disk one by
            # one.
            return lmdb.open(str(path), map_size=map_bytes, max_readers=MAX_READERS, metasync=False)
        except lmdb.MemoryError:
            if map_bytes == MAP_BYTES[-1]:
                raise
    raise AssertionError("MAP_BYTES is empty")


def _fill_up(environment: lmdb.Environment, data: Path) -> None:
    """Let a file end where its header says that it does.

    Raises:
        _CutOffError: it lacks more than LMDB leaves away.
    """
    page = environment.stat()["psize"]
    if _num_missing(environment, data) <= 0:
        return
    with environment.begin(write=True):  # no other process writes meanwhile
        missing = _num_missing(environment, data)
        if missing > MAX_LOOSE_PAGES * page:
            raise _CutOffError(f"{missing:,} bytes were cut off")
        if missing > 0:
            with data.open("r+b") as file:
                file.truncate(data.stat().st_size + missing)


def _num_missing(environment: lmdb.Environment, data: Path) -> int:
    """Return how many bytes a file is shorter than its header says."""
    num_pages = environment.info()["last_pgno"] + 1
    return num_pages * environment.stat()["psize"] - data.stat().st_size


def _discard(path: Path, why: str) -> bool:
    """Take a damaged file away; return whether that was possible."""
    try:
        remove(path, lambda: notice(f"{path} is damaged ({why}) and is made anew"))
    except OSError:
        return not path.exists()
    return True


def remove(path: Path, once_gone: Callable[[], None] = lambda: None) -> None:
    """Take a file away: out of its place at once, and then off the disk.

    Args:
        path: of the file.
        once_gone: called between the two.

    Raises:
        OSError: it cannot be, or is not there.
    """
    gone = path.with_name(f".{path.name}.{secrets.token_hex(6)}{SUFFIX}")
    path.rename(gone)
    once_gone()
    if gone.is_dir():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        gone.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """Return what an error says, without the path that the line names already."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error).rsplit(": ", 1)[-1]
