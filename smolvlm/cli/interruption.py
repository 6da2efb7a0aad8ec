"""A command that is stopped by Ctrl-C or by `kill`: what is kept is said, and how to go on.

The signals SIGINT and SIGTERM raise `Interrupted` in the main thread, once; a second one ends the
process at once, a second SIGTERM from some seconds on. Whoever knows what outlives the command adds
it on the way out (`says_what_is_kept`). Exit status 130 or 143, as shells give it; no traceback.
"""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from smolvlm.home import cache_dir
from smolvlm.terminal import say

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAME_SIGNAL_S = 5.0
_SIGNAL_STATUS = 128
"""Added to a signal's number, it is the exit status that shells give."""


class Interrupted(BaseException):
    """The command was told to stop; no `KeyboardInterrupt`, which libraries answer themselves."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.notes: list[str] = []
        """What is kept, and how to go on."""


@dataclass(slots=True)
class MeasuredRows:
    """How far the measuring of rows came; a `Report` of `length_cache.measure_sources`."""

    num_done: int = 0
    num_rows: int = 0

    def __call__(self, num_done: int, num_rows: int) -> None:
        self.num_done, self.num_rows = num_done, num_rows

    def notes(self) -> list[str]:
        """Return what is kept of a preparation."""
        folder = cache_dir() / "lengths"
        if not self.num_done:
            return ["kept: what was measured before", command_again()]
        rows = f"the sizes of {self.num_done:,} of {self.num_rows:,} rows"
        return [f"kept: {rows}, in {folder}", command_again()]


def interruptible(command: Callable[[], object]) -> None:
    """Run a command; where a signal stops it, say so and exit with the signal's status."""
    try:
        with _raising_signals():
            command()
    except Interrupted as interrupted:
        if os.environ.get("RANK", "0") == "0":  # one of several ranks says it
            name = "Ctrl-C" if interrupted.number == signal.SIGINT else "SIGTERM"
            say("\n".join([f"\nstopped by {name}", *interrupted.notes]))
        sys.exit(_SIGNAL_STATUS + interrupted.number)


@contextmanager
def says_what_is_kept(notes: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Add to an interruption that leaves the block what `notes` then returns."""
    try:
        yield
    except Interrupted as interrupted:
        interrupted.notes += notes()
        raise


def kept_of_run(output_dir: Path) -> str:
    """Return what is kept of a run that did not come to its end, by its folder."""
    from smolvlm.train.checkpoint_folder import whole_checkpoints

    checkpoints = whole_checkpoints(output_dir)
    if not checkpoints:
        return f"kept: no checkpoint, none was whole yet in {output_dir}; the run begins anew"
    return f"kept: {checkpoints[-1]}, the last whole checkpoint; the steps after it are done again"


def notes_of_run(config: "RunConfig") -> list[str]:
    """Return what is kept of a run, and the command that resumes it."""
    from smolvlm.train.checkpoint_folder import whole_checkpoints

    output_dir = Path(config.train.output_dir)
    has_checkpoint = bool(whole_checkpoints(output_dir))
    is_asked = config.train.resume_from_checkpoint == "auto" or not has_checkpoint
    overrides = [] if is_asked else ["train.resume_from_checkpoint=auto"]
    is_saved = has_checkpoint or config.train.arguments.get("enable_jit_checkpoint")
    hints = [] if is_saved else [_to_keep_more()]
    return [kept_of_run(output_dir), *hints, command_again(*overrides)]


def _to_keep_more() -> str:
    """Return what saves a run before its first checkpoint is due; the second, on one rank alone."""
    sooner = "a smaller train.save_steps saves sooner"
    if "RANK" in os.environ:
        return f"to keep more: {sooner}"
    return f"to keep more: {sooner}, train.enable_jit_checkpoint=true when the run is stopped"


def command_again(*overrides: str) -> str:
    """Return the line that says how to go on: the command that was given, or more of it."""
    if "RANK" in os.environ:  # a launcher's command is not known here
        more = f", with {' '.join(overrides)}" if overrides else ""
        return f"to go on: the same command again{more}"
    return f"to go on: {shlex.join(['smolvlm', *sys.argv[1:], *overrides])}"


def _ends_later() -> Callable[[int, FrameType | None], None]:
    """Return what answers further signals to end: those of the next seconds are the same one, which
    a scheduler sends to all processes and a launcher hands on to its ranks."""
    since = time.monotonic()

    def end(number: int, _frame: FrameType | None) -> None:
        if time.monotonic() - since > _SAME_SIGNAL_S:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    return end


@contextmanager
def _raising_signals() -> Iterator[None]:
    """Make signals raise `Interrupted` while the block runs; in the main thread alone it can be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process = os.getpid()

    def stop(number: int, _frame: FrameType | None) -> None:
        if os.getpid() != process:  # a process that was forked off
            if number != signal.SIGINT:  # Ctrl-C reaches all of a terminal's: its parent ends it
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, _ends_later())
        # torch raises an error wherever the program is when a loader's worker dies; those that the
        # same signal ended are no news.
        if hasattr(signal, "SIGCHLD"):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise Interrupted(number)

    earlier = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
