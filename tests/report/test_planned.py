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


def test_a_lines_time_is_shared_out_among_its_steps() -> None:
    assert step_seconds(TRAIN) == [40.0, 2.0, 1.0, 4.0]
    assert step_seconds([{"step": 1.0, "num_samples": 4.0}]) == [0.0], "it says no rate"


def test_one_line_is_warm_up_and_no_measurement() -> None:
    assert plan_rows(PLAN, [WARM_UP], settings="a: 1\n") == []


def test_a_run_that_keeps_features_is_compared_before_and_after() -> None:
    plan = PLAN | {"time": {"first_step_s": 2.2, "later_step_s": 1.0}}
    train = [line | {"epoch": line["step"] / 4} for line in TRAIN]
    assert plan_rows(plan, train, settings="a: 1\n")[:2] == [
        ("a step of the first epoch, s (median)", "2.20", "2.00", "+10%"),
        ("later, s (median)", "1.00", "2.50", "-60%"),
    ]


def test_a_whole_run_is_compared_in_all_and_a_part_of_it_is_not() -> None:
    time = {"first_step_s": 1.8, "before_s": 5.0, "total_s": 32.0}
    train = [line | {"num_tokens": 108.0} for line in TRAIN]
    plan = PLAN | {"time": time, "tokens": 540}
    # 40 seconds of the first step, then 2, 1 and 4 seconds a step for two steps each.
    assert plan_rows(plan, train, settings="a: 1\n")[1:3] == [
        ("all steps, s", "27.0", "54.0", "-50%"),
        ("tokens/s", "20", "8", "+150%"),
    ]
    names = [name for name, *_ in plan_rows(plan | {"steps": 9}, train, settings="a: 1\n")]
    assert "all steps, s" not in names
    assert "tokens/s" not in names


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
