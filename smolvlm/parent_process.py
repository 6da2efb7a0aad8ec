"""Child processes that end with their parent, however it ended: killed, out of memory, crashed.

In: the process that will start others (`Parent.here()`). Out: a small value that it hands them, and
that each calls first (`end_with`); or, for a program that is not ours, the command that starts it
by way of this file (`command`). Python's own children end in an orderly way alone: those of a
killed parent wait for its next task for ever, with all their memory.

Linux kills them itself (`PR_SET_PDEATHSIG`), also in the middle of a decoder that never returns.
It does so when the thread that started them ends, so it is asked only where that was the main one.
A thread of the child looks too: it serves other systems, other threads, and children of a fork
server, whose parent in the system's eyes is the server.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait

LOOK_S = 1.0
"""Between two looks at the parent, where nothing tells of its end."""
_PR_SET_PDEATHSIG = 1
_ORPHANED = 1
"""Exit status of a child that ended because its parent did."""
_watched: set[int] = set()
"""This process's number, once it watches; a fork's is another."""


@dataclass(frozen=True, slots=True)
class Parent:
    """A process that starts others."""

    process: int
    is_main_thread: bool
    """Whether its main thread starts them, which lives as long as the process."""

    @classmethod
    def here(cls) -> "Parent":
        """Return this process; call it in the thread that starts the others."""
        return cls(os.getpid(), threading.current_thread() is threading.main_thread())

    def end_with(self) -> None:
        """End this process, a child, at once or within seconds after its parent is gone.

        Ctrl-C, which a terminal sends to all processes of a command, is the parent's to answer. In
        the parent itself, and the second time, it does nothing.
        """
        if os.getpid() in (self.process, *_watched):
            return
        _watched.add(os.getpid())
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.is_main_thread and os.getppid() == self.process:
            _have_linux_kill_us()
        is_gone = self._gone()
        if is_gone(0):  # before the request reached the system
            os._exit(_ORPHANED)
        threading.Thread(target=_look, args=(is_gone,), name="parent", daemon=True).start()

    def command(self, command: Sequence[str]) -> list[str]:
        """Return the command that runs another program of any kind, ended with this process.

        By Linux alone, and for the main thread: elsewhere it is the command as it is.
        """
        if sys.platform != "linux" or not self.is_main_thread:
            return [*command]
        # -P: else this folder's modules would stand in for Python's of the same names.
        return [sys.executable, "-P", __file__, str(self.process), *command]

    def _gone(self) -> Callable[[float], bool]:
        """Return what waits so many seconds for the parent's end, and says whether it came."""
        parent = multiprocessing.parent_process()
        # A pipe of multiprocessing that the system closes with its parent, once no other child
        # that was forked since holds it.
        pipe = parent.sentinel if parent is not None and parent.pid == self.process else None
        is_child = pipe is None or os.getppid() == self.process

        def is_gone(seconds: float) -> bool:
            if pipe is None:
                time.sleep(seconds)
            elif wait([pipe], seconds):
                return True
            return is_child and os.getppid() != self.process

        return is_gone


def _look(is_gone: Callable[[float], bool]) -> None:
    while not is_gone(LOOK_S):
        pass
    os._exit(_ORPHANED)


def _have_linux_kill_us() -> None:
    """Ask Linux to kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        except (OSError, AttributeError):  # a C library without it: the thread looks
            return


if __name__ == "__main__":
    Parent(int(sys.argv[1]), True).end_with()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored signals outlive the next line
    os.execvp(sys.argv[2], sys.argv[2:])  # what Linux was asked stays asked
