"""Processes of others, looked up in /proc: who lives, and who started whom."""

import time
from collections.abc import Callable
from pathlib import Path

HAS_PROC = Path("/proc/self/stat").exists()
LIMIT_S = 60
"""For what takes a second or two where nothing else runs."""


def is_alive(process: int) -> bool:
    """Say whether a process runs; one that is dead and not yet waited for does not."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def children_of(process: int) -> list[int]:
    """Return the processes that one has started and that it has not yet waited for."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def command_of(process: int) -> str:
    """Return a process's command line, its words joined by spaces."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


def wait_until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for something that is sure to come; fail, and show `what`, where it does not."""
    end = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end, what()
        time.sleep(0.05)
