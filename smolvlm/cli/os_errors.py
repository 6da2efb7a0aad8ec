"""What the system refused a command, in words: which file, why, what is safe, what to do.

One handler for all commands, at the place where they end. Whoever knows what outlives a command
adds it as a note on the way out (`says_what_is_safe`).
"""

import errno
import getpass
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from smolvlm.disk.disk_space import shown_bytes
from smolvlm.disk.system_errors import os_error_in

AGAIN = "then give the same command again"
_FILE = re.compile(r"\[Errno \d+\] [^:\n]+: '([^'\n]+)'")
_PERMISSION = (errno.EACCES, errno.EPERM)
_TOO_MANY = (errno.EMFILE, errno.ENFILE)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def explained(error: OSError) -> str:
    """Return an error as the command line prints it, in lines."""
    cause = os_error_in(error) or error
    name = cause.filename or cause.filename2 or next(iter(_FILE.findall(str(error))), None)
    name = os.fsdecode(name) if isinstance(name, str | bytes) else None
    place = f"{name}: " if name is not None else ""
    what, fix = _what_and_fix(cause, name)
    notes = [f"  {note}" for note in getattr(error, "__notes__", ())]
    return "\n".join([f"{place}{what}", *notes, f"  fix: {fix}"])


@contextmanager
def says_what_is_safe(notes: Callable[[], str]) -> Iterator[None]:
    """Add to an OSError that leaves the block what `notes` then returns."""
    try:
        yield
    except OSError as error:
        error.add_note(notes())
        raise


def _what_and_fix(error: OSError, name: str | None) -> tuple[str, str]:
    """Return why the system refused, and what helps."""
    number = error.errno
    if number in _NO_ROOM:
        return f"no space is left on the disk{_room(name)}", f"free some room there, {AGAIN}"
    if number == errno.EROFS:
        return "its disk is mounted read-only", f"name a folder that can be written, {AGAIN}"
    if number in _PERMISSION:
        what = f"user {_user()} may not do this here ({error.strerror})"
        return what, f"change the permissions, or name another folder, {AGAIN}"
    if number in _TOO_MANY:
        return f"too many files are open{_limit()}", f"raise the limit (ulimit -n 65536), {AGAIN}"
    if number == errno.EFBIG:
        what = "the file would be larger than is allowed (ulimit -f, or the file system)"
        return what, f"raise the limit, or take another disk, {AGAIN}"
    if number == errno.ENOMEM:
        return "the system has no memory left", f"end other programs, {AGAIN}"
    if number == errno.EIO:
        return "the disk reports an error", "look into the system's log (dmesg) before going on"
    return error.strerror or str(error), f"see whether this path is the right one, {AGAIN}"


def _room(name: str | None) -> str:
    """Return how much is free where a file lies, in parentheses."""
    if name is None:
        return ""
    for place in (Path(name).absolute(), *Path(name).absolute().parents):
        try:
            usage = shutil.disk_usage(place)
        except OSError:
            continue
        return f" ({shown_bytes(usage.free)} of {shown_bytes(usage.total)} free)"
    return ""


def _limit() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return ""
    return f" (the limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,})"


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a number without a name
        return str(os.getuid())
