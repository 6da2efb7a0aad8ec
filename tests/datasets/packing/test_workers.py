"""Work over all cores: results of every item, and what is said of a process that dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from smolvlm.datasets.packing.workers import over_cores
from smolvlm.errors import ConfigError
from tests.processes import HAS_PROC, children_of, command_of, is_alive, wait_until

ROOT = Path(__file__).parents[3]
SLEEPERS = """
import os, time
from smolvlm.datasets.packing.workers import over_cores

def make():
    return sleep

def sleep(seconds):
    print(os.getpid(), flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    list(over_cores(make, (), [600] * 4, num_workers=2))
"""


def squares(offset: int) -> Callable[[int], int]:
    return lambda number: number**2 + offset


@pytest.mark.parametrize("num_workers", [1, 2])
def test_every_item_has_its_result(num_workers: int) -> None:
    results = dict(over_cores(squares, (1,), range(7), num_workers=num_workers))
    assert results == {number: number**2 + 1 for number in range(7)}


def dying(number_of_signal: int) -> Callable[[int], int]:
    def work(item: int) -> int:
        if item == 3:
            os.kill(os.getpid(), number_of_signal)
        return item

    return work


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_process_that_is_killed_is_a_sentence(number: signal.Signals) -> None:
    with pytest.raises(ConfigError) as caught:
        list(over_cores(dying, (int(number),), range(7), num_workers=2))
    assert str(caught.value).startswith(
        "num_workers: a process that reads rows was killed, or crashed, while it read\n"
        "  fix: most likely memory ran out"
    )


class KilledMeanwhile(Sequence[int]):
    """Items while which are handed out the processes are killed that were started for the first."""

    def __len__(self) -> int:
        return 3000

    def __getitem__(self, index: int) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        if index == 2:
            for child in multiprocessing.active_children():
                child.kill()
        if index > 2:
            time.sleep(0.01)  # the pool notices in a thread of its own
        return range(len(self))[index]


def test_a_process_that_is_killed_before_all_items_are_handed_out_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match="a process that reads rows"):
        list(over_cores(squares, (1,), KilledMeanwhile(), num_workers=2))


def never(number_of_signal: int) -> Callable[[int], int]:
    os.kill(os.getpid(), number_of_signal)
    raise AssertionError


def test_one_that_is_killed_before_its_first_row_is_too() -> None:
    with pytest.raises(ConfigError, match="a process that reads rows was killed, or crashed"):
        list(over_cores(never, (int(signal.SIGKILL),), range(7), num_workers=2))


@pytest.mark.skipif(not HAS_PROC, reason="children of others are looked up in /proc")
def test_all_end_where_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SLEEPERS)
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "script.py")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert parent.stdout is not None
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    all_processes = children_of(parent.pid)
    try:
        assert {*workers} <= {*all_processes}
        parent.kill()
        wait_until(
            lambda: not any(map(is_alive, all_processes)),
            lambda: [*map(command_of, all_processes)],
        )
    finally:
        for process in filter(is_alive, (parent.pid, *workers)):
            os.kill(process, signal.SIGKILL)
        parent.communicate()
