"""A rank that is waited for is shown once it has kept the others for long, and taken back after."""

import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from smolvlm.train.ranks.beats import Place, RankPlace
from smolvlm.train.ranks.waiting import WaitingRanks

SLOW = [RankPlace(3, Place(8, 0, 0))]
WORDS = "waits for rank 3 (step 8, loading its packs)"


class Others:
    """Says what a test sets."""

    def __init__(self) -> None:
        self.found: list[RankPlace] = []

    def behind(self) -> list[RankPlace]:
        return self.found


@pytest.fixture
def others() -> Others:
    return Others()


def watching(others: Others, shown: list[str], *, after_s: float) -> WaitingRanks:
    return WaitingRanks(cast(Any, others), shown.append, after_s=after_s, look_s=0.01)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_long_wait_is_shown_once_and_taken_back(others: Others) -> None:
    shown: list[str] = []
    waiting = watching(others, shown, after_s=0.05)
    waiting.start()
    others.found = SLOW
    wait_until(lambda: shown == [WORDS])
    time.sleep(0.1)
    assert shown == [WORDS], "once"
    others.found = []
    wait_until(lambda: shown == [WORDS, ""])
    waiting.stop()
    assert shown == [WORDS, ""]


def test_waits_that_change_are_not_long(others: Others) -> None:
    shown: list[str] = []
    waiting = watching(others, shown, after_s=60)
    waiting.start()
    for step in range(9):
        others.found = [RankPlace(3, Place(step, 0, 0))]
        time.sleep(0.02)
    waiting.stop()
    assert shown == []


def test_what_is_shown_at_the_end_is_taken_back(others: Others) -> None:
    shown: list[str] = []
    waiting = watching(others, shown, after_s=0)
    others.found = SLOW
    waiting.start()
    wait_until(lambda: shown == [WORDS])
    waiting.stop()
    assert shown == [WORDS, ""]
