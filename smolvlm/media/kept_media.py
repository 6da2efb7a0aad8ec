"""The folder of fetched pictures and clips, held to a bound: what was longest unused goes first.

In: the folder, and each file that is used or new. Out: files removed. The bound is the machine's
(`$SMOLVLM_MEDIA_GB`, 100 GB unless it says otherwise), since all runs share the folder. A file's
time of change is when it was used last, to the minute; one that was used within the last ten
minutes stays, since somebody may be about to open it. What is removed is fetched again when it is
needed.
"""

import math
import os
import time
from pathlib import Path

from smolvlm.errors import ConfigError
from smolvlm.home import cache_dir
from smolvlm.notices import notice

DEFAULT_GB = 100.0
VARIABLE = "SMOLVLM_MEDIA_GB"
_STAMPED_S = 60
_IN_USE_S = 600
_LOOK_SHARE = 0.02
"""Share of the bound that one process fetches between two looks at the whole folder."""
_KEPT_SHARE = 0.9
"""Of the bound, after files were removed."""


def media_dir() -> Path:
    """Return the folder of fetched media."""
    return cache_dir() / "media"


def max_bytes() -> int:
    """Return the bound of the folder, in bytes.

    Raises:
        ConfigError: the environment variable is no number above 0.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        size = float(text or DEFAULT_GB)
    except ValueError:
        size = math.nan
    if not 0 < size < math.inf:
        raise ConfigError(f"{text!r} is no number above 0", where=f"${VARIABLE}", fix="give GB")
    return int(size * 1e9)


class KeptMedia:
    """One process's view of the folder."""

    def __init__(self) -> None:
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
        folder, bound = media_dir(), max_bytes()
        self._unseen = math.inf if folder != self._folder else self._unseen + num_bytes
        self._folder = folder
        if self._unseen < _LOOK_SHARE * bound:
            return
        self._unseen = 0
        make_room(folder, bound)


def make_room(folder: Path, bound: int) -> int:
    """Remove files, the longest unused first, where there are more bytes than the bound.

    Args:
        folder: with a folder for each of the first two letters of its files' names.
        bound: in bytes.

    Returns:
        How many files were removed.
    """
    files = [
        (entry.stat().st_mtime, entry.stat().st_size, entry.path)
        for part in os.scandir(folder)
        if part.is_dir()
        for entry in os.scandir(part.path)
        if entry.is_file(follow_symlinks=False)
    ]
    total = sum(size for _, size, _ in files)
    if total <= bound:
        return 0
    num_removed, oldest_kept = 0, time.time() - _IN_USE_S
    for used, size, path in sorted(files):
        if total <= _KEPT_SHARE * bound or used > oldest_kept:
            break
        Path(path).unlink(missing_ok=True)
        total -= size
        num_removed += 1
    notice(
        f"fetched media in {folder} took more than ${VARIABLE}: {bound / 1e9:g} GB; those longest "
        "unused are removed, and fetched again when they are needed"
    )
    return num_removed
