"""Locks of the kernel on files: held by an open file, and gone with the process that opened it.

In: a path. Out: a `FileLock`, or None where another process has it. `flock` is the only one of the
locks at hand that ends with its holder however that ends (killed, out of memory, power cut) and
needs no process number to say so: numbers are reused, and are the same in two containers. A lock
belongs to an open file, which a fork shares, so it is closed again in every forked child: a
loader's worker that outlives its killed parent keeps nobody out.

Network file systems: NFS of Linux turns `flock` into a lock of the server, good across machines,
unless it is mounted with `nolock` or `local_lock`; Lustre needs the mount option `flock`; others
may have none. `LocksUnavailableError` says so where the system does.
"""

import errno
import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
_OPEN: set[int] = set()
"""Descriptors that hold a lock, or are about to."""


class LocksUnavailableError(OSError):
    """The system, or the file system of a path, has no file locks."""


class FileLock:
    """A lock on one open file, of this process and of none that it forks."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._process = os.getpid()

    def release(self) -> None:
        """Close the file, and the lock with it; does nothing the second time, or in a fork."""
        if self.descriptor in _OPEN and self._process == os.getpid():
            _close(self.descriptor)
            self.descriptor = -1

    def remove(self) -> None:
        """Delete the file while nobody else can have its lock, then release it."""
        if self.descriptor in _OPEN and self._process == os.getpid():
            self.path.unlink(missing_ok=True)
            self.release()


def try_lock(path: Path, *, is_new: bool = False, is_shared: bool = False) -> FileLock | None:
    """Lock a file without waiting; it is made where it is missing.

    Args:
        path: in a folder that exists.
        is_new: whether the file must not exist yet.
        is_shared: whether others may have a shared lock too, and none an exclusive one.

    Returns:
        None where another process, or this one by another file, has a lock that excludes it.

    Raises:
        LocksUnavailableError: there are no locks here.
        FileExistsError: `is_new`, and the file is there.
        OSError: it cannot be opened for writing.
    """
    if fcntl is None:
        raise LocksUnavailableError(errno.ENOSYS, "this system has no file locks", str(path))
    flags = os.O_RDWR | os.O_CREAT | (os.O_EXCL if is_new else 0)
    kind = fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX
    while True:
        descriptor = os.open(path, flags, 0o666)  # closed in programs that are started from here
        _OPEN.add(descriptor)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError as error:
            _close(descriptor)
            if error.errno in _TAKEN:
                return None
            raise LocksUnavailableError(error.errno, error.strerror, str(path)) from None
        if _is_file_at(path, descriptor):
            return FileLock(path, descriptor)
        _close(descriptor)  # its holder deleted it between our open and our lock


def _is_file_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _close(descriptor: int) -> None:
    _OPEN.discard(descriptor)
    os.close(descriptor)


def _close_in_child() -> None:
    for descriptor in tuple(_OPEN):
        _close(descriptor)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_close_in_child)
