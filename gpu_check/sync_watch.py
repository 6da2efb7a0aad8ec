"""Notes where Python was whenever PyTorch reports an operation that waits for the GPU.

`torch.cuda.set_sync_debug_mode("warn")` makes each such operation a warning; `"error"` would end
the run at the first. Here all are collected with the line that caused each, so that one run names
them all. The mode sees what PyTorch itself waits for (`nonzero`, `item`, copies from memory that is
not pinned); a library's own waiting it does not see. What the backward pass waits for is reported
where `backward` was called.
"""

import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

MESSAGE = "called a synchronizing"
OWN_FOLDERS = ("smolvlm", "gpu_check")
COMPILER_FOLDERS = ("torch/_inductor", "torch/_dynamo", "torch/_functorch", "triton")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sync:
    """A place that waited."""

    place: str
    """The innermost line of this project on the stack."""
    line: str
    """Its text."""
    raised_in: str
    """The innermost line of all, a library's perhaps."""
    is_compiling: bool
    """Whether a compiler was at work: a step with a new shape, and not every step."""


class SyncCount:
    """How often each place waited."""

    def __init__(self) -> None:
        self._counts: Counter[Sync] = Counter()

    def note(self, stack: traceback.StackSummary) -> None:
        """Count the place that a stack, outermost first, ends in."""
        frames = [
            frame
            for frame in stack
            if Path(frame.filename).name not in ("warnings.py", "sync_watch.py")
        ]
        if not frames:
            return
        own = [frame for frame in frames if set(OWN_FOLDERS) & set(Path(frame.filename).parts)]
        chosen = own[-1] if own else frames[-1]
        names = [frame.filename for frame in frames]
        sync = Sync(
            place=_shown(chosen),
            line=(chosen.line or "").strip(),
            raised_in=f"{_shown(frames[-1])}: {(frames[-1].line or '').strip()}",
            is_compiling=any(folder in name for name in names for folder in COMPILER_FOLDERS),
        )
        self._counts[sync] += 1

    @property
    def num_in_steps(self) -> int:
        """How many waits there were, those of a compiler left out."""
        return sum(count for sync, count in self._counts.items() if not sync.is_compiling)

    def listed(self) -> list[dict[str, Any]]:
        """Return the places, the most frequent first."""
        return [{"count": count, **asdict(sync)} for sync, count in self._counts.most_common()]


@contextmanager
def collected_warnings(count: SyncCount) -> Iterator[None]:
    """Count warnings about waiting while the block runs; others are shown as before."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=MESSAGE)
        show = warnings.showwarning

        def note_or_show(message: Any, *args: Any, **kwargs: Any) -> None:
            if MESSAGE in str(message):
                count.note(traceback.extract_stack())
            else:
                show(message, *args, **kwargs)

        warnings.showwarning = note_or_show
        yield


def _shown(frame: traceback.FrameSummary) -> str:
    """Return `file:line function`, the file from its package's folder on."""
    parts = Path(frame.filename).parts
    known = [number for number, part in enumerate(parts) if part in (*OWN_FOLDERS, "site-packages")]
    start = known[-1] + (parts[known[-1]] == "site-packages") if known else -1
    return f"{'/'.join(parts[start:])}:{frame.lineno} {frame.name}"
