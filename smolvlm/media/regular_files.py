"""Files that rows name, opened only if they are files: reading a pipe or a device may never end."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
"""A pipe that takes the file's place between looking and opening does not block."""


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises:
        IsADirectoryError: it is a folder.
        OSError: it is a pipe, a socket or a device, or cannot be opened.
        ValueError: no file can have this name.
    """
    _check(os.stat(path).st_mode, path)
    number = os.open(path, _FLAGS)
    try:
        _check(os.fstat(number).st_mode, path)
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


def _check(mode: int, path: Path) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
    raise OSError(errno.EINVAL, f"it is {kind}, not a file", str(path))
