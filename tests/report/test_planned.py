"""What was planned beside what was measured."""

from typing import Any

from smolvlm.report.planned import plan_rows, step_seconds

WARM_UP = {"step": 1.0, "num_samples": 4.0, "samples_per_s": 0.1, "peak_memory_gb": 9.0}
TRAIN = [
    WARM_UP,
    {"step": 3.0, "num_samples": 8.0, "samples_per_s": 2.0, "peak_memory_gb": 1.0},
    {"step": 5.0, "num_samples": 8.0, "samples_per_s": 4.0, "peak_memory_gb": 1.25},
    {"step": 7.0, "num_samples": 8.0, "samples_per_s": 1.0, "peak_memory_gb": 1.2},
]
PLAN: dict[str, Any] = {
    "time": {"first_step_s": 1.8},
    "memory": {"total": 1_000_000_000},
    "steps": 7,
    "device": "a CPU",
    "settings": "a: 1\n",
}


def test_a_step_is_the_median_of_the_lines_after_the_first() -> None:
    assert step_seconds(TRAIN) == 2.0
    assert step_seconds(TRAIN[:2]) == 2.0


def test_one_line_is_warm_up_and_no_measurement() -> None:
    assert step_seconds([WARM_UP]) == 0.0
    assert plan_rows(PLAN, [WARM_UP], settings="a: 1\n") == []


def test_planned_and_measured_stand_side_by_side() -> None:
    assert plan_rows(PLAN, TRAIN, settings="a: 1\n") == [
        ("a step, s (median)", "1.80", "2.00", "-10%"),
        ("peak memory, GB", "1.00", "1.25", "-20%"),
        ("steps", "7", "7", ""),
        ("device", "a CPU", "", ""),
    ]


def test_other_settings_are_said() -> None:
    *_, last = plan_rows(PLAN, TRAIN, settings="a: 2\n")
    assert last[0] == "planned under other settings than the run's"


def test_without_a_plan_there_is_no_table() -> None:
    assert plan_rows({}, TRAIN, settings="") == []
    assert plan_rows(PLAN, [], settings="") == []


def test_a_plan_that_lacks_figures_says_what_it_has() -> None:
    rows = plan_rows({"steps": 3, "settings": ""}, TRAIN, settings="")
    assert rows == [("steps", "3", "7", "")]
