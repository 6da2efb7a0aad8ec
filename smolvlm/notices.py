"""What is worth a line and stops nothing: a cache that is made anew, a disk without locks.

Lines go to the logger `smolvlm`, which Python prints on standard error unless a program says
otherwise; each is said once, and not by the workers that a process starts to load or to measure.
"""

import logging
import multiprocessing

from smolvlm.terminal import visible

_SAID: set[str] = set()


def notice(text: str) -> None:
    """Say a line once.

    Args:
        text: without a final stop; `note: ` is put before it.
    """
    if text not in _SAID and multiprocessing.parent_process() is None:
        _SAID.add(text)
        logging.getLogger("smolvlm").warning("note: %s", visible(text))
