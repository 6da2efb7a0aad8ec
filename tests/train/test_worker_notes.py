"""A worker's death as torch tells it, and as we do."""

import os
import signal
from typing import Any

import pytest

from smolvlm.datasets.packing.columns import PlannedPack
from smolvlm.media.decode_time import WORKER_STATUS
from smolvlm.train.worker_notes import WorkerNotes, listed, with_late_signal, worker_death

PACKS = (((0,), (1, 2)), ((3,), tuple(range(4, 20))))


class FewPacks:
    """Stands for a data set of two packs."""

    def planned(self, index: int) -> PlannedPack:
        return PlannedPack(samples=PACKS[index], num_tokens=0, num_tiles=0)

    def where(self, row: int) -> str:
        return f"a.jsonl:{row + 1}"


def died(how: str, notes: WorkerNotes) -> Any:
    return worker_death(
        RuntimeError(f"DataLoader worker (pid {os.getpid()}) {how}"), notes, FewPacks()
    )  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("how", "told", "fix"),
    [
        ("is killed by signal: Killed. ", "was killed by a signal (Killed)", "memory ran out"),
        (
            "is killed by signal: Segmentation fault. ",
            "was killed by a signal (Segmentation fault)",
            "crashes",
        ),
        (
            "is killed by signal: Bus error. It is possible that ...",
            "was killed by a signal (Bus error)",
            "shm-size",
        ),
        (
            "exited unexpectedly with exit code 3. Details are lost",
            "ended with status 3",
            "num_workers: 0",
        ),
        (
            f"exited unexpectedly with exit code {WORKER_STATUS}. Details are lost",
            "ended itself: decoding took more than data.max_decode_s",
            "raise `data.max_decode_s`",
        ),
        ("exited unexpectedly", "ended", "num_workers: 0"),
    ],
)
def test_a_death_is_told_with_its_cause_and_what_may_help(how: str, told: str, fix: str) -> None:
    notes = WorkerNotes(2)
    notes.begin(1, 0, 1)
    error = died(how, notes)
    assert str(error).startswith(
        f"a.jsonl:2, a.jsonl:3: the loader worker {os.getpid()} {told} while it read this\n"
    )
    assert fix in error.fix


def test_the_signal_is_found_where_torch_tells_it_in_another_error() -> None:
    notes = WorkerNotes(1)
    notes.begin(0, 0, 0)
    error = RuntimeError(f"DataLoader worker (pid(s) 1, {os.getpid()}) exited unexpectedly")
    error.__cause__ = RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed. ")
    death = worker_death(error, notes, FewPacks())  # pyright: ignore[reportArgumentType]
    assert str(death).startswith(
        f"a.jsonl:1: the loader worker 1, {os.getpid()} was killed by a signal (Killed)"
    )


def test_a_worker_that_dies_between_two_packs_names_the_last() -> None:
    notes = WorkerNotes(1)
    notes.begin(0, 1, 1)
    notes.end(0)
    error = died("is killed by signal: Killed. ", notes)
    assert error.where == f"{', '.join(f'a.jsonl:{row}' for row in range(4, 12))} and 9 more"
    assert error.what.endswith("after it had read this")


def test_a_worker_that_never_began_names_no_row() -> None:
    error = died("is killed by signal: Killed. ", WorkerNotes(1))
    assert error.where is None
    assert error.what.endswith("at once")


def test_a_broken_connection_is_followed_to_the_death_that_broke_it() -> None:
    def handler(*_: object) -> None:
        raise RuntimeError(f"DataLoader worker (pid {os.getpid()}) is killed by signal: Killed. ")

    broken = ConnectionResetError("reset by peer")
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        assert "is killed by signal" in str(with_late_signal(broken))
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_failure_that_no_death_follows_stays_what_it_is() -> None:
    full = OSError("No space left on device")
    assert with_late_signal(full) is full


def test_other_errors_are_left_alone() -> None:
    packs: Any = FewPacks()
    assert worker_death(RuntimeError("CUDA out of memory"), WorkerNotes(1), packs) is None


def test_rows_are_listed_once_each() -> None:
    assert listed([]) is None
    assert listed(["a:1", "a:2", "a:1"]) == "a:1, a:2"
