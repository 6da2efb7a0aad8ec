"""What the names of metrics mean: scores of rows, scores over rows, intervals."""

import pytest

from smolvlm.config.eval_metrics import ANSWER_METRICS as NAMES
from smolvlm.errors import SampleError
from smolvlm.eval.intervals import wilson_interval
from smolvlm.eval.metrics.bleu import bleu
from smolvlm.eval.metrics.cider_d import cider_d
from smolvlm.eval.prediction import Prediction
from smolvlm.eval.scoring import (
    ANSWER_METRICS,
    answer_metrics,
    check_references,
    row_scores,
    share_right,
)


def predicted(answer: str, *references: str, question: str = "?", **scores: float) -> Prediction:
    return Prediction(
        where="a.jsonl:3", source="a", group="a", question=question, answer=answer,
        references=references, correct=0.0, images=(), scores=scores,
    )  # fmt: skip


def scored(names: list[str], rows: list[Prediction]) -> list[Prediction]:
    return [
        predicted(row.answer, *row.references, question=row.question, **scores)
        for row, scores in zip(rows, row_scores(names, rows), strict=True)
    ]


def test_the_names_are_those_of_the_run_file() -> None:
    assert tuple(ANSWER_METRICS) == NAMES


def test_scores_of_rows_and_their_means() -> None:
    rows = scored(
        ["anls", "exact_match"],
        [predicted("Pariss", "Paris"), predicted("two", "2"), predicted("x", "yes")],
    )
    assert [dict(row.scores) for row in rows] == [
        {"anls": pytest.approx(5 / 6), "exact_match": 0.0},
        {"anls": 0.0, "exact_match": 1.0},
        {"anls": 0.0, "exact_match": 0.0},
    ]
    by_anls, exact = answer_metrics(["anls", "exact_match"], rows, source="all")
    assert (by_anls.value, by_anls.num_rows) == (pytest.approx(5 / 18), 3)
    assert by_anls.interval is not None
    assert by_anls.interval.method == "bootstrap"
    assert 0 == by_anls.interval.low < by_anls.value < by_anls.interval.high <= 5 / 6
    assert exact.interval is not None
    ends = (exact.interval.low, exact.interval.high)
    assert ends == wilson_interval(1 / 3, 3)
    assert exact.interval.method == "wilson"


def test_captions_are_scored_over_the_whole_set() -> None:
    said = ["a cat sits on the mat", "two dogs run in the park", "a red bus"]
    true = [
        ["a cat on a mat", "the cat sits on a mat"],
        ["two dogs run in a park"],
        ["a blue bus stops"],
    ]
    rows = scored(["bleu", "cider_d"], [predicted(a, *r) for a, r in zip(said, true, strict=True)])
    by_bleu, by_cider = answer_metrics(["bleu", "cider_d"], rows, source="all")
    assert by_bleu.value == pytest.approx(bleu(said, true))
    assert by_bleu.value != pytest.approx(sum(row.scores["bleu"] for row in rows) / 3)
    assert by_cider.value == pytest.approx(cider_d(said, true))
    for metric in (by_bleu, by_cider):
        assert metric.interval is not None
        assert metric.interval.low < metric.value < metric.interval.high


def test_what_could_not_be_read_is_counted() -> None:
    question = "Which?\nA. one\nB. two"
    rows = scored(
        ["multiple_choice"],
        [
            predicted("B", "B", question=question), predicted("neither", "B", question=question),
            predicted("A", "B", question=question), predicted("(A)", "B", question=question),
        ],
    )  # fmt: skip
    right, unreadable = answer_metrics(["multiple_choice"], rows, source="all")
    assert (right.name, right.value) == ("multiple_choice", 0.25)
    assert (unreadable.name, unreadable.value) == ("multiple_choice_unreadable", 0.25)
    boxes = scored(["iou"], [predicted("[0, 0, 1, 1]", "[0, 0, 1, 1]"), predicted("?", "1 1 2 2")])
    assert [metric.value for metric in answer_metrics(["iou"], boxes, source="all")] == [0.5, 0.5]


def test_without_rows_there_is_no_interval() -> None:
    assert [
        (metric.value, metric.num_rows, metric.interval)
        for metric in answer_metrics(["exact_match", "bleu"], [], source="all")
    ] == [(0.0, 0, None)] * 2
    assert row_scores(["exact_match"], []) == []


@pytest.mark.parametrize(
    ("scores", "share"),
    [
        ({"vqa_accuracy": 0.9, "exact_match": 1.0}, 0.9),
        ({"bleu": 25.0}, 0.25),
        ({"cider_d": 10.0}, 1.0),
    ],
)
def test_how_right_a_row_is_is_its_first_score(scores: dict[str, float], share: float) -> None:
    assert share_right(scores) == pytest.approx(share)


def test_a_row_that_no_answer_could_fit_is_named() -> None:
    check_references(["iou", "anls"], predicted("", "left", "[1, 2, 3, 4]"))
    check_references(["anls"], predicted("", "left"))
    with pytest.raises(SampleError, match=r"`iou` needs a box in the true answer: 'left'") as error:
        check_references(["anls", "iou"], predicted("", "left"))
    assert error.value.where == "a.jsonl:3"
