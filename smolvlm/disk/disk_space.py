"""How much room a disk has, and whether it is full."""

import shutil
from pathlib import Path

NO_SPACE = "no space is left on the disk"
FULL_BYTES = 1 << 20
"""A disk with less than this is full: what is written at once is mostly more."""


def free_bytes(path: Path) -> int | None:
    """Return how much may still be written where a path is or will be; None if nobody knows."""
    for place in (path.absolute(), *path.absolute().parents):
        try:
            return shutil.disk_usage(place).free
        except FileNotFoundError:
            continue
        except OSError:
            return None
    return None


def is_full(path: Path) -> bool:
    """Say whether the disk of a path is full."""
    free = free_bytes(path)
    return free is not None and free < FULL_BYTES


def shown_bytes(count: float) -> str:
    """Return `12 kB`, `340 MB` or `1.2 GB`."""
    for unit, name in ((1e9, "GB"), (1e6, "MB")):
        if count >= unit:
            return f"{count / unit:,.{1 if count < 10 * unit else 0}f} {name}"
    return f"{count / 1e3:,.0f} kB"
