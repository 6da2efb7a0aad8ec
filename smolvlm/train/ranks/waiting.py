"""Says, while a run waits for one of its ranks, which that is."""

import threading
import time
from collections.abc import Callable, Sequence

from smolvlm.train.ranks.beats import RankBeats, RankPlace, waits_for

LOOK_S = 0.5


class WaitingRanks:
    """A thread that looks at the places of all ranks, and shows who is behind for long."""

    def __init__(
        self,
        beats: RankBeats,
        show: Callable[[str], None],
        *,
        after_s: float,
        look_s: float = LOOK_S,
    ) -> None:
        """
        Args:
            beats: of this rank and the others.
            show: given the words once a wait is that long, and nothing ("") once it is over.
            after_s: how long the same ranks must be at the same place.
            look_s: between two looks.
        """
        self._beats = beats
        self._show = show
        self._after_s = after_s
        self._look_s = look_s
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="waiting-ranks", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more; what is shown is taken back."""
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        seen: Sequence[RankPlace] = ()
        since, is_shown = time.monotonic(), False
        while not self._is_over.wait(self._look_s):
            behind = self._beats.behind()
            if behind != seen:
                seen, since = behind, time.monotonic()
                if is_shown:
                    self._show("")
                    is_shown = False
            if behind and not is_shown and time.monotonic() - since >= self._after_s:
                self._show(waits_for(behind))
                is_shown = True
        if is_shown:
            self._show("")
