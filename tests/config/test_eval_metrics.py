"""Which numbers the best model may be chosen by."""

import pytest

from smolvlm.config.eval_metrics import METRICS, is_greater_better, metric_problem
from smolvlm.eval.evaluate import _metrics


def test_the_names_are_those_that_an_evaluation_writes() -> None:
    assert {metric.name for metric in _metrics([], [])} == set(METRICS)


@pytest.mark.parametrize("metric", [*METRICS, "eval_loss", "loss_photos", "eval_exact_match_words"])
def test_known_ones(metric: str) -> None:
    assert metric_problem(metric) is None
    assert metric_problem(metric, ["photos", "words"]) is None


def test_a_misspelt_one() -> None:
    problem = metric_problem("eval_exactmatch")
    assert problem == (
        "no evaluation writes it, only exact_match, vqa_accuracy, loss; did you mean `exact_match`?"
    )


def test_a_source_that_is_not_there_and_one_that_is_alone() -> None:
    problem = metric_problem("loss_photo", ["photos", "words"])
    assert problem is not None
    assert problem.endswith("did you mean `loss_photos`?")
    assert metric_problem("loss_photos", ["photos"]) is not None


def test_less_loss_is_better_of_one_source_too() -> None:
    assert [is_greater_better(name) for name in ("eval_loss", "loss_photos", "exact_match")] == [
        False,
        False,
        True,
    ]
