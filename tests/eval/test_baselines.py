"""Answers that need no picture."""

from smolvlm.eval.baselines import lookup_answers, majority_answers


def test_baselines_that_never_look() -> None:
    train = [
        ("Is it red?", "no"),
        ("Is it red?", "no"),
        ("Is it red?", "yes"),
        ("Is it blue?", "yes"),
        ("Which shape?", "circle"),
        ("Which colour?", "red"),
    ]
    source_of = {
        "Is it red?": "yes_no",
        "Is it blue?": "yes_no",
        "Which shape?": "shape",
        "Never seen?": "other",
    }
    assert majority_answers(train, source_of=source_of) == {
        "Is it red?": "no",  # no and yes are equally frequent: the first in order
        "Is it blue?": "no",
        "Which shape?": "circle",
    }
    assert lookup_answers(train) == {
        "Is it red?": "no",
        "Is it blue?": "yes",
        "Which shape?": "circle",
        "Which colour?": "red",
    }
