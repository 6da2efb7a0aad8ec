"""The same questions over time: which are kept, and how their answers are told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smolvlm.errors import SampleError
from smolvlm.eval.prediction import Prediction
from smolvlm.report.answer_log import (
    FILE_NAME,
    NUM_QUESTIONS,
    AnswerHistory,
    answer_histories,
    answer_line,
)
from smolvlm.report.report import run_report
from tests.report.test_report import text_of


def said(number: int, answer: str, *, group: str = "a", correct: float = 0.0) -> Prediction:
    return Prediction(
        where=f"rows.jsonl:{number}",
        source=group,
        group=group,
        question=f"What is {number}?",
        answer=answer,
        references=(str(number),),
        correct=correct,
        images=(),
    )


def write(folder: Path, *lines: dict[str, Any]) -> None:
    (folder / FILE_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))


def told(history: AnswerHistory) -> list[tuple[str, str, bool]]:
    return [(one.when, one.answer, one.is_right) for one in history.answers]


def test_the_same_few_questions_of_every_group_each_time() -> None:
    rows = [said(number, "x", group="ab"[number % 2]) for number in range(100)]
    chosen = answer_line(0, rows)["answers"]
    assert len(chosen) == NUM_QUESTIONS
    assert sorted(row["group"] for row in chosen) == ["a"] * 6 + ["b"] * 6
    later = [said(number, "y", group="ab"[number % 2], correct=1.0) for number in range(100)]
    again = answer_line(40, list(reversed(later)))["answers"]
    assert [row["where"] for row in again] == [row["where"] for row in chosen]


def test_equal_answers_in_a_row_stand_together_the_untrained_ones_apart(tmp_path: Path) -> None:
    answers = {0: "cat", 10: "cat", 20: "cat", 30: "dog", 40: "7", 1000: "7"}
    lines = [
        answer_line(step, [said(7, answer, correct=float(answer == "7"))])
        for step, answer in answers.items()
    ]
    write(tmp_path, *lines)
    (history,) = answer_histories(tmp_path)
    assert (history.question, history.truth) == ("What is 7?", "7")
    assert told(history) == [
        ("before", "cat", False),
        ("10 to 20", "cat", False),
        ("step 30", "dog", False),
        ("40 to 1,000", "7", True),
    ]


def test_a_step_that_was_evaluated_twice_counts_once(tmp_path: Path) -> None:
    write(
        tmp_path, *(answer_line(step, [said(1, text)]) for step, text in ((5, "a"), (9, "b"))),
        answer_line(9, [said(1, "c")]),
    )  # fmt: skip
    (history,) = answer_histories(tmp_path)
    assert told(history) == [("step 5", "a", False), ("step 9", "c", False)]


def test_one_evaluation_has_no_history(tmp_path: Path) -> None:
    assert answer_histories(tmp_path) == ()
    write(tmp_path, answer_line(5, [said(1, "a")]))
    assert answer_histories(tmp_path) == ()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"step": 1, "answers": 3}\n' * 2)
    with pytest.raises(SampleError, match="a list of objects as `answers`"):
        answer_histories(tmp_path)


def test_the_page_shows_them_while_the_run_trains(write_run: Callable[..., Path]) -> None:
    folder = write_run()
    write(folder, answer_line(0, [said(1, "<b>cat")]), answer_line(20, [said(1, "1", correct=1.0)]))
    page = run_report(folder)
    assert "<b>cat" not in page
    assert "truth 1 before <b>cat ✗ wrong step 20 1 ✓ right" in text_of(page)
