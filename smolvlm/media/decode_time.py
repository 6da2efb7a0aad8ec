"""How long a row's media may take to decode, and what ends a decoder that takes longer.

In: a limit in seconds of CPU time, and what to call the row. Out: nothing, or a `SampleError` of
kind `too_slow_media`, which ends the run whatever `on_bad_sample` says: rows that hinge on a
machine's speed would be other rows elsewhere. Counted is the CPU time of the thread that decodes,
so neither a busy machine nor a slow disk is taken for a slow file.

Three things look at the clock, each where the one before cannot:

- `check_time`: called between packets and frames of a clip, and whenever a decoder reads on in its
  file (`timed`).
- A thread that watches while a decoder is at work (`watched`): a computation in C that neither
  reads nor returns is ended with the process, once it is past `OVERRUN` times the limit. It writes
  who it was (`on_overrun`), and the exit status is 1.
- Nothing: a decoder that holds Python's lock keeps that thread waiting too. What one call may then
  cost is bounded by what the file may hold: pixels, scans, sides (`images.py`).
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import BinaryIO, cast

from smolvlm.errors import SampleError
from smolvlm.terminal import say

OVERRUN = 1.5
"""How far past the limit a decoder in C may be before its process is ended: until then it may come
back and be told in words."""
MAX_DECODE_S = 60.0
"""Of one row, unless a run says otherwise (`data.max_decode_s`)."""
STATUS, WORKER_STATUS = 1, 114
"""Of a process that is ended; of one that another waits for, so that it can tell why."""
_POLL_S = 0.5
FIX = (
    "take the row out, or write its file anew; raise `data.max_decode_s` if it is meant to take so "
    "long"
)


@dataclass(kw_only=True, slots=True)
class _Budget:
    """The time of one row in one thread."""

    limit_s: float
    where: str | None
    clock: int
    """Of the thread's CPU time."""
    begin_s: float
    is_over: bool = False
    """Whether the row is decoded; a generator that nobody closed may still be watched."""

    @property
    def spent_s(self) -> float:
        return time.clock_gettime(self.clock) - self.begin_s

    def error(self) -> SampleError:
        """Return what is said of the row."""
        what = (
            f"its pictures and clips take more than data.max_decode_s = {self.limit_s:g} s of CPU "
            "time to decode"
        )
        return SampleError(what, kind="too_slow_media", where=self.where, fix=FIX)


class _Local(threading.local):
    """The budget of the thread that decodes."""

    budget: _Budget | None = None


_local = _Local()
HAS_CLOCK = hasattr(time, "pthread_getcpuclockid")
"""Where the system has no clock of a thread (Windows), no time is set."""


def _last_words(error: SampleError) -> None:
    if parent_process() is None:  # a worker's are its parent's to say
        say(f"error: {error}", to=sys.stderr)


on_overrun: list[Callable[[SampleError], None]] = [_last_words]
"""What the process does with its last words; the last one is called."""


@contextmanager
def decoding(limit_s: float, *, where: str | None = None) -> Iterator[None]:
    """Give what is decoded in the block so much time; within another such block, that one's.

    Args:
        limit_s: seconds of this thread's CPU time.
        where: the row, as messages call it.

    Raises:
        SampleError: it took longer; also at the block's end.
    """
    if _local.budget is not None or not HAS_CLOCK:
        yield
        return
    clock = time.pthread_getcpuclockid(threading.get_ident())
    begin_s = time.clock_gettime(clock)
    _local.budget = _Budget(limit_s=limit_s, where=where, clock=clock, begin_s=begin_s)
    try:
        yield
        check_time()
    finally:
        _local.budget.is_over = True
        _local.budget = None


def check_time() -> None:
    """Raise if the row that is being decoded has had its time.

    Raises:
        SampleError: of kind `too_slow_media`.
    """
    budget = _local.budget
    if budget is not None and budget.spent_s > budget.limit_s:
        raise budget.error()


@contextmanager
def watched() -> Iterator[None]:
    """End the process if a decoder in this block neither reads nor returns."""
    budget = _local.budget
    if budget is None:
        yield
        return
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(budget, is_over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        is_over.set()
        watcher.join()
    check_time()


def _watch(budget: _Budget, is_over: threading.Event) -> None:
    while not is_over.wait(_POLL_S) and not budget.is_over:
        if budget.spent_s > budget.limit_s * OVERRUN + _POLL_S:
            try:
                on_overrun[-1](budget.error())
            finally:
                os._exit(STATUS if parent_process() is None else WORKER_STATUS)


class _TimedFile:
    """A file that looks at the clock whenever it is read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        check_time()
        return self._file.read(size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def timed(file: BinaryIO) -> BinaryIO:
    """Return a file that raises, once the row that is being decoded has had its time."""
    return file if _local.budget is None else cast(BinaryIO, _TimedFile(file))
