"""The runner: a stage that fails, crashes or hangs costs itself and no other."""

import json
import time
from pathlib import Path

import pytest

from gpu_check.__main__ import main
from gpu_check.contract import Outcome, Stage
from gpu_check.runner import LINES_FILE, LOG_FILE, Plan, run_stages
from gpu_check.stage_list import BUDGET_S, CORE, STAGES, UNPACK_LIMIT_S
from gpu_check.table import render_table

HOW = ("fails", "hangs", "crashes", "exits", "raises", "lacks", "skips", "passes")


def plan_in(folder: Path, *, seconds: float = 600) -> Plan:
    return Plan(
        device="cpu",
        is_tiny=True,
        out_dir=folder,
        work_dir=folder / "work",
        site_dir=folder / "site",
        deadline=time.perf_counter() + seconds,
    )


def bad_stage(how: str) -> Stage:
    limit_s = 3 if how == "hangs" else 60
    return Stage(name=how, module="tests.gpu_check.bad_stage", limit_s=limit_s, argument=how)


@pytest.fixture(scope="module")
def out_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("out")


@pytest.fixture(scope="module")
def outcomes(out_dir: Path) -> dict[str, Outcome]:
    ended = run_stages([bad_stage(how) for how in HOW], plan_in(out_dir))
    return {outcome.stage: outcome for outcome in ended}


def test_each_stage_ends_as_it_should_and_the_next_one_runs(outcomes: dict[str, Outcome]) -> None:
    assert tuple(outcomes) == HOW
    assert {how: outcomes[how].status for how in HOW} == {
        **dict.fromkeys(HOW, "failed"),
        "skips": "skipped",
        "passes": "passed",
    }


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("fails", "two is not three"),
        ("hangs", "killed after 3 s, its limit"),
        ("crashes", "crashed (killed by signal 11)"),
        ("exits", "crashed (ended with status 7)"),
        ("raises", "ValueError: a broken contract (at bad_stage.py:"),
        ("lacks", "package a_package_that_nobody_has is missing here: put its wheel into"),
        ("skips", "there is nothing to check"),
        ("passes", ""),
    ],
)
def test_the_error_says_what(outcomes: dict[str, Outcome], how: str, error: str) -> None:
    assert error in outcomes[how].error
    assert bool(error) == bool(outcomes[how].error)


def test_what_was_measured_before_the_end_is_kept(outcomes: dict[str, Outcome]) -> None:
    assert all(outcome.figures["begun"] == 1 for outcome in outcomes.values())


def test_what_a_hanging_stage_started_is_killed_with_it(outcomes: dict[str, Outcome]) -> None:
    status = Path(f"/proc/{outcomes['hangs'].figures['sleeper']}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_lines_log_and_table(outcomes: dict[str, Outcome], out_dir: Path) -> None:
    lines = [json.loads(line) for line in (out_dir / LINES_FILE).read_text().splitlines()]
    assert [line["stage"] for line in lines] == list(HOW)
    assert [line["ok"] for line in lines] == [False] * 6 + [True] * 2
    assert lines[0]["figures"] == {"begun": 1, "nested": {"value": 2}}
    assert "ValueError" in (out_dir / LOG_FILE).read_text()
    table = render_table(list(outcomes.values()))
    assert "1 passed, 6 failed, 1 skipped" in table
    assert "nested.value  2" in table


def test_a_stage_is_not_begun_when_the_time_is_up(tmp_path: Path) -> None:
    (outcome,) = run_stages([bad_stage("passes")], plan_in(tmp_path, seconds=1))
    assert outcome.status == "failed"
    assert "run it alone with --stages passes" in outcome.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stages", "exact,exakt"], "no stage exakt; there are install, exact, "),
        (["--stages", ","], "no stage is named"),
        (["--device", "tpu"], "invalid choice"),
        (["--budget-s", "0"], "0 is not above 0"),
    ],
)
def test_wrong_usage(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_the_core_ends_in_five_minutes_and_all_in_nine() -> None:
    core = [stage.limit_s for stage in STAGES if stage.name in CORE]
    assert UNPACK_LIMIT_S + sum(core) <= 300
    assert BUDGET_S <= 540
