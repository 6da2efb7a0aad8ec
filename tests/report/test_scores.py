"""Chosen metrics on the page of a run."""

from pathlib import Path
from typing import Any

from smolvlm.eval.prediction import Prediction
from smolvlm.report.files import read_predictions
from smolvlm.report.report import write_run_report
from smolvlm.report.scores import score_rows


def line(source: str, answer: str, truth: str, **scores: float) -> dict[str, Any]:
    return {
        "where": f"{source}:1", "source": source, "group": source, "question": "?",
        "prediction": answer, "references": [truth], "correct": 0.5, "images": [],
        "scores": scores,
    }  # fmt: skip


CHOSEN = [
    line("docs", "Pariss", "Paris", anls=5 / 6),
    line("docs", "London", "Paris", anls=0.0),
    line("charts", "5", "5.1", relaxed_accuracy=1.0, exact_match=0.0),
]


def predictions(lines: list[dict[str, Any]]) -> list[Prediction]:
    return [
        Prediction(
            where=one["where"], source=one["source"], group=one["group"], question="?",
            answer=one["prediction"], references=tuple(one["references"]), correct=0.5, images=(),
            scores=one["scores"],
        )
        for one in lines
    ]  # fmt: skip


def test_a_line_for_each_source_and_metric() -> None:
    rows = score_rows(predictions(CHOSEN), predictions(CHOSEN[:1]))
    assert [
        (row.after.source, row.after.name, round(row.after.value, 3), row.after.num_rows)
        for row in rows
    ] == [
        ("charts", "relaxed_accuracy", 1.0, 1),
        ("charts", "exact_match", 0.0, 1),
        ("docs", "anls", 0.417, 2),
    ]
    assert [row.before and round(row.before.value, 3) for row in rows] == [None, None, 0.833]


def test_a_run_with_the_default_metrics_has_no_such_table() -> None:
    usual = [line("a", "x", "y", exact_match=0.0, vqa_accuracy=0.0), line("a", "x", "y")]
    assert score_rows(predictions(usual), []) == ()


def test_the_page_shows_them(write_run: Any) -> None:
    run: Path = write_run(after=CHOSEN, before=CHOSEN)
    assert [dict(row.scores) for row in read_predictions(run / "predictions.jsonl")] == [
        one["scores"] for one in CHOSEN
    ]
    page = write_run_report(run).read_text()
    assert "Scores by source" in page
    assert "<td>relaxed_accuracy</td><td>1.0000</td><td>1.0000</td>" in page
    plain: Path = write_run(after=[line("a", "x", "x")])
    assert "Scores by source" not in write_run_report(plain).read_text()
