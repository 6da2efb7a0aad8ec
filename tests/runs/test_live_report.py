"""The page of a run that is training: when it is written, and that it costs little."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

import smolvlm.runs.live_report
from smolvlm.report.progress import FILE_NAME, Progress, read_progress
from smolvlm.runs.live_report import EVERY_S, MAX_SHARE, LiveReport


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    lines = [{"step": step, "loss": 2.0 - step / 10} for step in (1, 2)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


class Run:
    """A live report and the events that its trainer would send."""

    def __init__(self, run_dir: Path, clock: Clock) -> None:
        self.messages: list[str] = []
        self.live = LiveReport(run_dir, say=self.messages.append, clock=clock)
        self.arguments = TrainingArguments(output_dir=str(run_dir), use_cpu=True, report_to="none")
        self.send("train_begin", step=0)

    def send(self, event: str, *, step: int, is_first: bool = True) -> None:
        state = TrainerState(global_step=step, max_steps=9, is_world_process_zero=is_first)
        handle = getattr(self.live, f"on_{event}")
        handle(self.arguments, state, TrainerControl())


def refreshes(run_dir: Path) -> bool:
    return 'http-equiv="refresh" content="15"' in (run_dir / "report.html").read_text()


def test_after_an_evaluation_and_else_about_once_a_minute(run_dir: Path, clock: Clock) -> None:
    page, run = run_dir / "report.html", Run(run_dir, clock)
    clock.now += EVERY_S - 1
    run.send("step_end", step=2)
    assert not page.exists()
    clock.now += 1
    run.send("step_end", step=3)
    assert "Step 3 of 9, still training." in page.read_text()
    assert refreshes(run_dir)
    clock.now += 1
    run.send("step_end", step=4)
    assert read_progress(run_dir) == Progress(step=3, num_steps=9)
    run.send("evaluate", step=4)
    assert read_progress(run_dir) == Progress(step=4, num_steps=9)


def test_a_page_that_takes_long_waits_a_hundred_times_as_long(
    run_dir: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float] = []

    def write_slowly(_: Path) -> None:
        written.append(clock.now)
        clock.now += 2

    monkeypatch.setattr(smolvlm.runs.live_report, "write_run_report", write_slowly)
    run = Run(run_dir, clock)
    for step in range(1, 601):
        clock.now += 1
        run.send("evaluate" if step % 10 == 0 else "step_end", step=step)
    assert len(written) > 1
    waits = [later - earlier - 2 for earlier, later in itertools.pairwise(written)]
    assert all(MAX_SHARE * wait >= 2 for wait in waits)
    assert max(waits) <= 202, "and no longer"


def test_runs_of_less_than_a_minute_have_none(run_dir: Path, clock: Clock) -> None:
    run = Run(run_dir, clock)
    clock.now += 50
    run.send("evaluate", step=2)
    assert not (run_dir / "report.html").exists()


def test_before_the_first_log_line_and_on_other_ranks_there_is_none(
    tmp_path: Path, run_dir: Path, clock: Clock
) -> None:
    (run_dir / "metrics.jsonl").rename(tmp_path / "kept")
    run = Run(run_dir, clock)
    clock.now += 100
    run.send("evaluate", step=2)
    (tmp_path / "kept").rename(run_dir / "metrics.jsonl")
    run.send("train_begin", step=2, is_first=False)
    clock.now += 100
    run.send("evaluate", step=2, is_first=False)
    with run.live:
        pass
    assert not (run_dir / "report.html").exists()


def test_what_goes_wrong_is_said_once_and_ends_nothing(
    run_dir: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(smolvlm.runs.live_report, "write_run_report", fail)
    run = Run(run_dir, clock)
    for step in (1, 2, 3):
        clock.now += 100
        run.send("evaluate", step=step)
    assert run.messages == ["note: report.html was not written while training: no space left"]


def test_a_run_that_is_stopped_is_not_said_to_go_on(run_dir: Path, clock: Clock) -> None:
    run = Run(run_dir, clock)
    clock.now += 100

    def stop() -> None:
        with run.live:
            run.send("evaluate", step=2)
            assert refreshes(run_dir)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert not refreshes(run_dir)
    assert not (run_dir / FILE_NAME).exists()


def test_how_far_it_is_stands_there_from_its_begin_on(run_dir: Path, clock: Clock) -> None:
    """Whatever a start that was killed left, and before any page is written."""
    (run_dir / FILE_NAME).write_text("{}")
    run = Run(run_dir, clock)
    begun = read_progress(run_dir)
    assert begun is not None
    assert begun.step == 0
    run.send("log", step=1)
    assert read_progress(run_dir) == Progress(step=1, num_steps=begun.num_steps)
    assert not (run_dir / "report.html").exists()
    with run.live:
        pass
    assert not (run_dir / FILE_NAME).exists()


def test_the_answers_of_an_earlier_end_are_not_shown_while_it_trains(
    run_dir: Path, clock: Clock
) -> None:
    row: dict[str, Any] = {"where": "a:1", "source": "a", "group": "a", "question": "Which?"}
    row |= {"prediction": "x", "references": ["x"], "correct": 1.0, "images": []}
    (run_dir / "predictions.jsonl").write_text(json.dumps(row) + "\n")
    run = Run(run_dir, clock)
    clock.now += 100
    run.send("evaluate", step=2)
    assert "Accuracy on held-out rows" not in (run_dir / "report.html").read_text()
