"""A rank that stands still ends its process, and says where: nobody waits for ever.

In: a beat at every pack, with the step and the rows that it begins. A thread looks at the clock;
once a beat is older than `train.step_timeout_s` it says which rank, step and rows, and what every
thread of the process was doing, and ends the process with `STALLED`. The launcher then ends the
others. What takes long by itself (evaluation, saving) is not timed.
"""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from smolvlm.terminal import say
from smolvlm.train.ranks.beats import Phase, RankBeats, waits_for
from smolvlm.train.worker_notes import listed

STALLED = 75
"""Exit status of a rank that stood still: a temporary failure, as sysexits.h has it."""
_LOOKS = 10
"""How often in a timeout the clock is looked at."""


class StepWatch:
    """Watches one rank's steps while it is open; without a timeout it does nothing."""

    def __init__(
        self,
        timeout_s: float | None,
        *,
        rank: int,
        beats: RankBeats | None = None,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        """
        Args:
            timeout_s: between two beats; None is any.
            rank: this process's.
            beats: tells the other ranks where this one is; None where there are none.
            end: ends the process at once: a thread that waits for another rank cannot be reached.
        """
        self.beats = beats or RankBeats(None, rank=rank, num_ranks=1)
        self._timeout_s = timeout_s
        self._rank = rank
        self._end = end
        self._beat: tuple[float, int, Sequence[str]] | None = None
        self._closed = threading.Event()

    @contextmanager
    def open(self) -> Iterator[None]:
        """Watch from the first beat on until the block is left."""
        if self._timeout_s is None:
            yield
            return
        thread = threading.Thread(target=self._watch, name="step-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._closed.set()
            thread.join()

    def beat(self, phase: Phase, step: int, rows: Sequence[str] = ()) -> None:
        """Note that the loading of packs begins, or a pack.

        Args:
            phase: which of them.
            step: that it belongs to.
            rows: `file:row` of those in the pack.
        """
        self.beats.reach(phase, step=step)
        self._beat = (time.monotonic(), step, rows)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time nothing until the next beat."""
        self.beats.reach("saving")
        self._beat = None
        yield
        self._beat = None

    def _watch(self) -> None:
        assert self._timeout_s is not None
        while not self._closed.wait(self._timeout_s / _LOOKS):
            beat = self._beat
            if beat is None or time.monotonic() - beat[0] < self._timeout_s:
                continue
            _, step, rows = beat
            read = f" over these rows: {listed(rows)}" if rows else " waiting for its packs"
            behind = self.beats.behind()
            others = f"it {waits_for(behind)}\n" if behind else ""
            say(
                f"error: rank {self._rank} stood still in step {step} for more than "
                f"{self._timeout_s:g} s (train.step_timeout_s),{read}\n{others}"
                "  fix: look at the rows (`smolvlm inspect`) and at the other ranks' messages; "
                "where a pack takes that long, raise train.step_timeout_s\n"
                "what its threads were doing:"
            )
            faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
            self._end(STALLED)
            return
