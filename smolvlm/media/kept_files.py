"""The folders of what was fetched, each held to a bound: what was longest unused goes first.

In: a folder, and each file that is used or new. Out: files removed. The bounds are the machine's
(`$SMOLVLM_MEDIA_GB` and `$SMOLVLM_ROWS_GB`, 100 GB each unless they say otherwise), since all runs
share the folders. A file's time of change is when it was used last, to the minute. What was used a
short while ago stays, since somebody may be about to open it: ten minutes for a picture or clip, a
week for a file of rows, which a run asks for at its start alone. What is removed is fetched again
when it is needed.
"""

import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from smolvlm.errors import ConfigError
from smolvlm.home import cache_dir
from smolvlm.notices import notice

DEFAULT_GB = 100.0
_STAMPED_S = 60
_LOOK_SHARE = 0.02
"""Share of the bound that one process fetches between two looks at the whole folder."""
_KEPT_SHARE = 0.9
"""Of the bound, after files were removed."""


def media_dir() -> Path:
    """Return the folder of fetched media."""
    return cache_dir() / "media"


def rows_dir() -> Path:
    """Return the folder of fetched files of rows."""
    return cache_dir() / "remote-rows"


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """What a folder is held to."""

    what: str
    variable: str
    """Of the environment: GB."""
    in_use_s: float
    """What was used so recently stays."""


MEDIA = Bound(what="media", variable="SMOLVLM_MEDIA_GB", in_use_s=600)
ROWS = Bound(what="files of rows", variable="SMOLVLM_ROWS_GB", in_use_s=7 * 86_400)


def max_bytes(bound: Bound) -> int:
    """Return a folder's bound, in bytes.

    Raises:
        ConfigError: the environment variable is no number above 0.
    """
    text = os.environ.get(bound.variable, "")
    try:
        size = float(text or DEFAULT_GB)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise ConfigError(
            f"{text!r} is no number above 0", where=f"${bound.variable}", fix="give GB"
        )
    return int(size * 1e9)


class KeptFiles:
    """One process's view of a folder."""

    def __init__(self, bound: Bound, folder: Callable[[], Path]) -> None:
        """Take what the folder is held to, and what says where it is now."""
        self._bound, self._folder_now = bound, folder
        self._unseen = math.inf  # the first fetched file looks
        self._folder: Path | None = None

    def used(self, file: Path) -> None:
        """Note that a file is about to be opened; it need not be there."""
        now = time.time()
        try:
            if now - file.stat().st_mtime > _STAMPED_S:
                os.utime(file, (now, now))
        except OSError:  # removed meanwhile, or another user's
            return

    def fetched(self, num_bytes: int) -> None:
        """Note a new file, and make room where the folder has grown beyond its bound."""
        folder, size = self._folder_now(), max_bytes(self._bound)
        self._unseen = math.inf if folder != self._folder else self._unseen + num_bytes
        self._folder = folder
        if self._unseen < _LOOK_SHARE * size:
            return
        self._unseen = 0
        make_room(folder, size, self._bound)


def make_room(folder: Path, max_bytes: int, bound: Bound) -> int:
    """Remove files, the longest unused first, where there are more bytes than the bound.

    Args:
        folder: its files lie in folders of its folders, locks and files that are being fetched
            (`.name`) among them.
        max_bytes: the bound.
        bound: whose name and time of grace hold.

    Returns:
        How many files were removed.
    """
    files = sorted(_files_in(folder))
    total = sum(size for _, size, _ in files)
    if total <= max_bytes:
        return 0
    num_removed, oldest_kept = 0, time.time() - bound.in_use_s
    for used, size, path in files:
        if total <= _KEPT_SHARE * max_bytes or used > oldest_kept:
            break
        path.unlink(missing_ok=True)
        total -= size
        num_removed += 1
    left = "" if total <= max_bytes else f"; {total / 1e9:.3g} GB were used lately and stay"
    notice(
        f"fetched {bound.what} in {folder} took more than ${bound.variable}: {max_bytes / 1e9:g} "
        f"GB; those longest unused are removed, and fetched again when they are needed{left}"
    )
    return num_removed


def _files_in(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield when each file was used, its bytes and its path."""
    for inner, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(inner, name)
            try:
                state = path.lstat()
            except FileNotFoundError:  # another process makes room
                continue
            if not name.startswith(".") and stat.S_ISREG(state.st_mode):
                yield state.st_mtime, state.st_size, path
