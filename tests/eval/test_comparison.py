"""Two models on the same rows: differences and their paired intervals."""

import pytest

from smolvlm.eval.comparison import differences
from smolvlm.eval.evaluate import Evaluation, evaluation_of
from smolvlm.eval.prediction import Prediction, TokenScores
from smolvlm.eval.token_scores import RowTokens


def evaluated(answers: list[str], *, loss: float, first: int = 0) -> Evaluation:
    """Twelve rows of two sources; the truth is always yes."""
    rows, tokens = [], []
    for number, answer in enumerate(answers, start=first):
        source = "a" if number % 2 else "b"
        where = f"{source}:{number}"
        rows.append(
            Prediction(
                where=where, source=source, group=source, question="?", answer=answer,
                references=("yes",), correct=0.0, images=(),
            )
        )  # fmt: skip
        scores = TokenScores(loss=loss * (number + 1), num_right=number % 3, num_tokens=number + 1)
        tokens.append(RowTokens(where=where, source=source, scores=scores))
    return evaluation_of(rows, tokens, {"a": ("exact_match", "anls"), "b": ("exact_match",)})


def test_every_metric_of_both_by_source() -> None:
    base = evaluated(["no"] * 9 + ["yes"] * 3, loss=2.0)
    model = evaluated(["no"] * 3 + ["yes"] * 9, loss=1.5)
    found = {(one.source, one.name): one for one in differences(model, base)}
    assert list(found) == [
        (source, name)
        for source, names in (("all", ["exact_match"]), ("a", ["exact_match", "anls"]),
                              ("b", ["exact_match"]))
        for name in (*names, "token_accuracy", "loss")
    ]  # fmt: skip
    overall = found["all", "exact_match"]
    assert (overall.base, overall.value, overall.num_rows) == (0.25, 0.75, 12)
    assert overall.difference == 0.5
    assert 0 < overall.interval.low < 0.5 < overall.interval.high <= 1
    assert found["all", "loss"].difference == pytest.approx(-0.5)
    assert found["all", "token_accuracy"].difference == 0
    for metric in (*model.metrics, *base.metrics):
        beside = found[metric.source, metric.name]
        assert metric.value in (pytest.approx(beside.value), pytest.approx(beside.base))


def test_what_both_share_does_not_widen_the_interval() -> None:
    one = evaluated(["yes", "no"] * 6, loss=1.0)
    for difference in differences(one, one):
        assert (difference.difference, difference.interval.low, difference.interval.high) == (
            0, 0, 0,
        )  # fmt: skip


def test_rows_that_one_could_not_answer_are_left_out_of_both() -> None:
    base = evaluated(["yes"] * 4, loss=1.0)
    model = evaluated(["yes"] * 2 + ["no"] * 2, loss=1.0, first=2)
    overall = next(one for one in differences(model, base) if one.name == "exact_match")
    assert (overall.num_rows, overall.base, overall.value) == (2, 1.0, 1.0)
    assert differences(evaluated(["yes"], loss=1.0, first=9), base) == []


def test_worse_is_an_interval_that_lies_on_the_bad_side_of_none() -> None:
    good = evaluated(["yes"] * 11 + ["no"], loss=1.0)
    bad = evaluated(["no"] * 11 + ["yes"], loss=2.0)
    worse = {(one.source, one.name) for one in differences(bad, good) if one.is_worse}
    assert {("all", "exact_match"), ("all", "loss")} <= worse
    assert not any(one.is_worse for one in differences(good, bad))
    assert not any(one.is_worse for one in differences(good, good))
