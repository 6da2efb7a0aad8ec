"""The campaign notices what it is for: each planted fault is named, and the inputs after it run."""

from collections.abc import Callable

import pytest

from fuzz.campaign import Limits, Outcome, run_campaign
from fuzz.names import Name, shared_out
from tests.fuzz import planted
from tests.grids import as_grid

ROWS = shared_out(60, ["rows"])


def with_planted(
    plant: Callable[[], None], names: list[Name] = ROWS, limits: Limits | None = None
) -> Outcome:
    return run_campaign(names, seed=0, limits=limits, plant=plant)


@pytest.mark.parametrize(
    ("plant", "kind", "what"),
    [
        (planted.an_exception, "crash", "KeyError: 'planted'"),
        as_grid((planted.too_much_memory, "crash", "MemoryError")),
        as_grid((planted.the_row_before, "swap", "is none of the row's own")),
        (planted.another_picture, "swap", "is none of the row's own"),
        as_grid((planted.a_lost_picture, "swap", "is lost without a word")),
        as_grid((planted.a_lost_turn, "swap", "is lost without a word")),
        as_grid((planted.a_lost_system_turn, "swap", "system 0 at")),
        (planted.turns_in_another_order, "swap", "turns stand in the order"),
        as_grid((planted.speakers_exchanged, "swap", "is said by")),
        as_grid((planted.an_unread_key_in_silence, "swap", "is lost without a word")),
        (planted.a_lost_row, "swap", "rows are read where the reference reads"),
    ],
)
def test_a_planted_fault_is_noticed(plant: Callable[[], None], kind: str, what: str) -> None:
    outcome = with_planted(plant)
    assert outcome.num_inputs.total() == len(ROWS)
    assert [fault for fault in outcome.faults if fault.kind == kind and what in fault.what]


def test_a_damaged_picture_that_passes_is_noticed() -> None:
    outcome = with_planted(planted.a_damaged_picture, shared_out(60, ["pictures"]))
    assert [fault for fault in outcome.faults if "pictures" in str(fault.name)]


@pytest.mark.parametrize(
    ("plant", "kind", "what"),
    [
        (planted.an_endless_loop, "hang", "over 1 s of CPU time"),
        (planted.a_dead_process, "death", "the process ended with -11"),
    ],
)
def test_what_ends_the_process_is_named_and_passed(
    plant: Callable[[], None], kind: str, what: str
) -> None:
    names = ROWS[:4]
    outcome = with_planted(plant, names, Limits(cpu_s=1))
    assert {(fault.kind, fault.what) for fault in outcome.faults} == {(kind, what)}
    assert outcome.num_inputs["rows"] == len(names)


def test_a_wait_without_an_end_is_a_hang() -> None:
    outcome = with_planted(planted.a_wait, ROWS[1:2], Limits(wall_s=5.0))
    assert [(fault.kind, fault.what) for fault in outcome.faults] == [("hang", "nothing for 5 s")]
