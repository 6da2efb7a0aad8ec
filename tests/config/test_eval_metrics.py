"""Which numbers the best model may be chosen by."""

import pytest

from smolvlm.config.eval_metrics import (
    ANSWER_METRICS,
    DEFAULT_METRICS,
    METRICS,
    is_greater_better,
    metric_names,
    metric_problem,
    unknown_metric,
    written_names,
)
from smolvlm.eval.evaluate import evaluation_of
from smolvlm.eval.prediction import Prediction

SOURCES = {"photos": DEFAULT_METRICS, "words": ("anls", "exact_match")}


def row(source: str) -> Prediction:
    return Prediction(
        where=f"{source}:1", source=source, group=source, question="", answer="",
        references=("x",), correct=0.0, images=(),
    )  # fmt: skip


@pytest.mark.parametrize("sources", [{"photos": DEFAULT_METRICS}, SOURCES])
def test_the_names_are_those_that_an_evaluation_writes(
    sources: dict[str, tuple[str, ...]],
) -> None:
    logged = evaluation_of([row(source) for source in sources], [], sources).as_log()
    assert {name for name in logged if "_ci95_" not in name} == set(written_names(sources))


@pytest.mark.parametrize("metric", [*METRICS, "eval_loss", "loss_photos", "eval_exact_match_words"])
def test_known_ones(metric: str) -> None:
    assert metric_problem(metric) is None


@pytest.mark.parametrize(
    "metric", ["loss", "eval_token_accuracy", "exact_match", "anls_words", "vqa_accuracy_photos"]
)
def test_those_of_the_sources(metric: str) -> None:
    assert metric_problem(metric, SOURCES) is None


@pytest.mark.parametrize("metric", ["anls", "vqa_accuracy", "anls_photos", "bleu_words"])
def test_what_not_every_source_has_and_what_a_source_has_not(metric: str) -> None:
    assert metric_problem(metric, SOURCES) is not None


def test_a_misspelt_one() -> None:
    problem = metric_problem("eval_exactmatch")
    assert problem == (
        f"no evaluation writes it, only {', '.join(METRICS)}; did you mean `exact_match`?"
    )


def test_a_source_that_is_not_there_and_one_that_is_alone() -> None:
    problem = metric_problem("loss_photo", SOURCES)
    assert problem is not None
    assert problem.endswith("did you mean `loss_photos`?")
    assert metric_problem("loss_photos", {"photos": DEFAULT_METRICS}) is not None


def test_less_loss_is_better_of_one_source_too() -> None:
    assert [is_greater_better(name) for name in ("eval_loss", "loss_photos", "exact_match")] == [
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("anls", ("anls",)),
        (["anls", "iou", "anls"], ("anls", "iou")),
        ([], None),
        (3, None),
        (["anls", 3], None),
        ({"anls": 1}, None),
    ],
)
def test_one_metric_or_a_list(value: object, names: tuple[str, ...] | None) -> None:
    assert metric_names(value) == names


def test_the_nearest_name_is_proposed() -> None:
    assert unknown_metric(ANSWER_METRICS) is None
    assert unknown_metric(["anls", "cider"]) == (
        "`cider` is no metric of answers",
        "did you mean `cider_d`?",
    )
    wrong = unknown_metric(["wer"])
    assert wrong is not None
    assert wrong[1] == f"the metrics are {', '.join(ANSWER_METRICS)}"
