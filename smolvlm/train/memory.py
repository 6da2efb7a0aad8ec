"""How much memory a copy may take: of the machine, and of the container that this runs in."""

import re
from pathlib import Path

_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB", re.MULTILINE)
_SPARE = 2.0
"""Times what is asked for must be free: loaders and the next step want memory too."""


def has_memory_for(num_bytes: int, *, root: Path = Path("/")) -> bool:
    """Say whether so much memory is free, with as much again to spare.

    Args:
        num_bytes: of a copy.
        root: where `proc` and `sys` lie.

    Returns:
        False where the system does not say (other systems than Linux).
    """
    try:
        found = _AVAILABLE.search((root / "proc/meminfo").read_text())
    except OSError:
        found = None
    if found is None:
        return False
    free = min([int(found[1]) * 1024, *_left_in_container(root / "sys/fs/cgroup")])
    return free >= _SPARE * num_bytes


def _left_in_container(folder: Path) -> list[int]:
    """Return what a container's limit leaves, or nothing without one (cgroup v2, then v1)."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return [int((folder / limit).read_text()) - int((folder / used).read_text())]
        except (OSError, ValueError):  # not there, or `max`
            continue
    return []
