"""Which step's model a run ends with, as its page says it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from smolvlm.report.best import best_sentence, final_scores
from smolvlm.report.files import RunFiles, read_run_files
from smolvlm.report.progress import Progress, write_progress
from smolvlm.report.report import run_report
from tests.report.test_report import text_of

BY_OURS = "eval: {best_by: exact_match, patience: %d}\n"
BY_THEIRS = "train: {load_best_model_at_end: true, metric_for_best_model: eval_exact_match}\n"


@pytest.fixture
def run_dir(write_run: Callable[..., Path]) -> Callable[[str], Path]:
    """Writes a run that was evaluated at 0, 5, 10, 15 and 20 and scored best at 10."""

    def write(settings: str) -> Path:
        folder = write_run(settings=settings)
        scores = {0: 0.9, 5: 0.25, 10: 0.75, 15: 0.5, 20: 0.5}
        lines = [
            {
                "step": step,
                "eval_exact_match": score,
                "eval_exact_match_ci95_low": score - 0.1,
                "eval_exact_match_ci95_high": score + 0.1,
            }
            for step, score in scores.items()
        ]
        with (folder / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        return folder

    return write


def read(folder: Path) -> RunFiles:
    return read_run_files(folder)


def test_without_the_setting_the_last_step_counts(run_dir: Callable[[str], Path]) -> None:
    run = read(run_dir(""))
    assert best_sentence(run) == ""
    assert final_scores(run)["step"] == 20


@pytest.mark.parametrize("settings", [BY_OURS % 9, BY_THEIRS])
def test_the_best_step_is_named_and_its_scores_count(
    run_dir: Callable[[str], Path], settings: str
) -> None:
    run = read(run_dir(settings))
    assert best_sentence(run) == (
        "The model is that of step 10, whose exact_match is the best, 0.7500."
    )
    assert final_scores(run)["eval_exact_match"] == 0.75


def test_an_early_end_is_said(run_dir: Callable[[str], Path]) -> None:
    sentence = best_sentence(read(run_dir(BY_OURS % 2)))
    assert sentence.endswith("Training stopped after 2 evaluations without anything better.")


def test_while_it_trains_the_newest_scores_count(run_dir: Callable[[str], Path]) -> None:
    folder = run_dir(BY_OURS % 9)
    write_progress(folder, Progress(step=20, num_steps=40))
    run = read(folder)
    assert best_sentence(run) == "The best exact_match so far is that of step 10, 0.7500."
    assert final_scores(run)["step"] == 20


def test_the_page_says_both_what_is_best_and_what_is_worse(run_dir: Callable[[str], Path]) -> None:
    text = text_of(run_report(run_dir(BY_OURS % 9)))
    assert "The model is that of step 10, whose exact_match is the best" in text
    assert "Worse than before training , at step 10" in text
    assert "exact_match 0.7500 (was 0.9000)" in text


def test_only_the_untrained_model_was_evaluated(write_run: Callable[..., Path]) -> None:
    folder = write_run(settings=BY_OURS % 1)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 0, "eval_exact_match": 0.5}\n')
    assert best_sentence(read(folder)) == ""
    assert final_scores(read(folder)) == {}


@pytest.mark.parametrize(
    ("settings", "metric", "best"),
    [("eval: {best_by: exact_match}\n", "exact_match", 0.9), ("", "loss", 0.1)],
)
def test_the_table_of_some_evaluations_has_the_first_the_best_and_the_last(
    write_run: Callable[..., Path], settings: str, metric: str, best: float
) -> None:
    folder = write_run(settings=settings)
    lines = [
        {"step": step, f"eval_{metric}": best if step == 113 else 0.5} for step in range(100, 121)
    ]
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    (heading,) = re.findall(r"<th>at step</th>(.*?)</tr>", run_report(folder))
    shown = re.findall(r"<th>([\d,]+|before)</th>", heading)
    assert len(shown) == 6
    assert "113" in shown[1:-1]
    assert shown[-1] == "120"
