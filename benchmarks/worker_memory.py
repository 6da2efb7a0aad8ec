"""How much memory a worker's steps take, in bytes: the peak of each, and what any trainer needs.

The kernel's high-water mark is set back before each step (`/proc/self/clear_refs`), so that
building the trainer does not count. Elsewhere than on Linux the mark stands since the start.
"""

import resource
import sys
from pathlib import Path
from typing import Any

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
BYTES_A_VALUE = 4


def begin_peak() -> None:
    """Let the next peak count from here."""
    if _RESET.exists():
        _RESET.write_text("5")


def peak_rss_bytes() -> int:
    """Return the most resident memory since `begin_peak`."""
    if _STATUS.exists():
        return _status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def rss_bytes() -> int:
    """Return what is resident now; the peak where the system does not say."""
    return _status_bytes("VmRSS") if _STATUS.exists() else peak_rss_bytes()


def state_bytes(model: Any) -> int:
    """Return what a float32 model takes to train: weights, and of those that are trained the
    gradient and AdamW's two moments."""
    values = list(model.parameters())
    trained = sum(value.numel() for value in values if value.requires_grad)
    return BYTES_A_VALUE * (sum(value.numel() for value in values) + 3 * trained)


def _status_bytes(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{_STATUS} has no {name}")
