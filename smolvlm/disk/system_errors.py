"""Errors of the machine, and not of a file or a row: a full disk, too many open files.

Libraries that write through other languages raise errors of their own where a disk is full
(`SafetensorError: ... (os error 28)`, torch's `RuntimeError: PytorchStreamWriter failed`); here
they become the `OSError` that they stand for, with a file's name. The command line says what it
means (`cli/os_errors.py`).
"""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smolvlm.disk.disk_space import is_full

OF_THE_MACHINE = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EROFS}
)
"""Of opening or reading a file, these say nothing about the file."""
_OF_WRITING = frozenset({*OF_THE_MACHINE, errno.EFBIG, errno.EIO})
_NUMBER = re.compile(r"\[?(?:os error|[Ee]rrno) (\d+)[\])]?")
_TORCH_WRITER = re.compile(r"inline_container|PytorchStreamWriter|iostream error")


def raise_of_the_machine(error: Exception) -> None:
    """Raise an error again that is the machine's, so that no row is blamed for it, or skipped."""
    if isinstance(error, OSError) and error.errno in OF_THE_MACHINE:
        raise error


@contextmanager
def os_errors_of(path: Path) -> Iterator[None]:
    """Turn what other libraries raise where `path` cannot be written into the OSError it is.

    Raises:
        OSError: with a file's name, `path` where it is not known better.
    """
    try:
        yield
    except Exception as error:  # of any library that writes a file
        cause = os_error_in(error, path)
        if cause is not None and cause is error:
            if cause.errno in _OF_WRITING:  # of a copy the second name is the one written to
                cause.filename = cause.filename2 or cause.filename or str(path)
            raise
        if cause is None or cause.errno not in _OF_WRITING:
            raise
        raise cause from error


def os_error_in(error: Exception, path: Path | None = None) -> OSError | None:
    """Return the OSError that an error is or tells of; None for any other.

    Args:
        path: that was written.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    name = None if path is None else str(path)
    if numbers := _NUMBER.findall(str(error)):
        number = int(numbers[-1])
        return OSError(number, os.strerror(number), name)
    if path is not None and _TORCH_WRITER.search(str(error)):
        number = errno.ENOSPC if is_full(path) else errno.EIO  # torch does not say which
        return OSError(number, os.strerror(number), name)
    return error if isinstance(error, OSError) else None
