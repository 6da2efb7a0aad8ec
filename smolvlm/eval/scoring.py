"""The metrics of answers by name: what each is worth on a row, and over rows.

In: predictions. Out: scores of rows, and `Metric`s with their intervals. The formulae are in
`metrics/`; here is what a name of the run file means, and how its interval is taken.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smolvlm.config.eval_metrics import TOKEN_METRICS
from smolvlm.config.problems import shown_value
from smolvlm.errors import SampleError
from smolvlm.eval.intervals import (
    Interval,
    Summed,
    bootstrap_intervals,
    mean_of,
    ratio,
    wilson_interval,
)
from smolvlm.eval.metrics.anls import anls
from smolvlm.eval.metrics.bleu import bleu_counts, bleu_of_counts
from smolvlm.eval.metrics.cider_d import cider_d_rows
from smolvlm.eval.metrics.exact_match import exact_match
from smolvlm.eval.metrics.grounding import (
    box_accuracy,
    iou,
    point_in_box,
    read_box,
    read_point,
)
from smolvlm.eval.metrics.multiple_choice import chosen_option, multiple_choice, question_options
from smolvlm.eval.metrics.relaxed_accuracy import relaxed_accuracy
from smolvlm.eval.metrics.vqa_accuracy import vqa_accuracy
from smolvlm.eval.prediction import Prediction, TokenScores

Rows = Sequence[Prediction]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One number."""

    name: str
    value: float
    num_rows: int
    source: str
    interval: Interval | None = None
    """Of 95 %; None without rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerMetric:
    """What a name means."""

    score_rows: Callable[[Rows], list[float]]
    """Each row's score, among all of them."""
    largest: float = 1.0
    """Of a row's score; the smallest is 0."""
    is_binary: bool = False
    """Whether a row is worth 1 or 0 and nothing between, so that the interval is Wilson's."""
    summed: Callable[[Rows, Sequence[float]], Summed] = lambda _, scores: mean_of(scores)
    """What the score over all rows is a function of, given theirs."""
    is_readable: Callable[[Prediction], bool] | None = None
    """Whether anything could be read of an answer; what could not is counted."""
    needs_box: bool = False
    """Whether references have to hold boxes."""


def _each(score: Callable[[str, Sequence[str]], float]) -> Callable[[Rows], list[float]]:
    return lambda rows: [score(row.answer, row.references) for row in rows]


def _choices(rows: Rows) -> list[float]:
    return [multiple_choice(row.answer, row.references, question=row.question) for row in rows]


def _bleu_rows(rows: Rows) -> list[float]:
    return [bleu_of_counts(counts) for counts in _bleu_counts(rows)]


def _bleu_counts(rows: Rows) -> np.ndarray:
    return bleu_counts([row.answer for row in rows], [row.references for row in rows])


def _bleu_summed(rows: Rows, _: Sequence[float]) -> Summed:
    return Summed(
        statistics=_bleu_counts(rows),
        value=lambda sums: np.array([bleu_of_counts(counts) for counts in sums]),
    )


def _cider_rows(rows: Rows) -> list[float]:
    return cider_d_rows([row.answer for row in rows], [row.references for row in rows])


def _names_option(row: Prediction) -> bool:
    return chosen_option(row.answer, question_options(row.question)) is not None


def _has_box(row: Prediction) -> bool:
    return read_box(row.answer) is not None


def _has_point(row: Prediction) -> bool:
    return read_point(row.answer) is not None


ANSWER_METRICS: Mapping[str, AnswerMetric] = {
    "exact_match": AnswerMetric(score_rows=_each(exact_match), is_binary=True),
    "vqa_accuracy": AnswerMetric(score_rows=_each(vqa_accuracy)),
    "anls": AnswerMetric(score_rows=_each(anls)),
    "relaxed_accuracy": AnswerMetric(score_rows=_each(relaxed_accuracy), is_binary=True),
    "multiple_choice": AnswerMetric(score_rows=_choices, is_binary=True, is_readable=_names_option),
    "bleu": AnswerMetric(score_rows=_bleu_rows, largest=100, summed=_bleu_summed),
    "cider_d": AnswerMetric(score_rows=_cider_rows, largest=10),
    "iou": AnswerMetric(score_rows=_each(iou), is_readable=_has_box, needs_box=True),
    "box_accuracy": AnswerMetric(
        score_rows=_each(box_accuracy), is_binary=True, is_readable=_has_box, needs_box=True
    ),
    "point_in_box": AnswerMetric(
        score_rows=_each(point_in_box), is_binary=True, is_readable=_has_point, needs_box=True
    ),
}
"""By the name in a run file; `config/eval_metrics.py` lists the same."""


def summed_scores(name: str, rows: Rows) -> Summed:
    """Return a metric over rows as a function of their sums.

    Args:
        name: one of `ANSWER_METRICS`.
        rows: with their `scores` of it.
    """
    return ANSWER_METRICS[name].summed(rows, [row.scores[name] for row in rows])


def summed_tokens(rows: Sequence[TokenScores]) -> dict[str, Summed]:
    """Return token accuracy and loss, sums over tokens, as functions of sums over rows."""
    counts = np.array([[row.num_right, row.loss, row.num_tokens] for row in rows]).reshape(-1, 3)
    return {
        name: Summed(statistics=counts[:, [column, 2]], value=ratio)
        for column, name in enumerate(TOKEN_METRICS)
    }


def value_of(summed: Summed) -> float:
    """Return a score over all its rows."""
    return float(summed.value(summed.statistics.sum(0, keepdims=True))[0])


def answer_metrics(names: Sequence[str], rows: Rows, *, source: str) -> list[Metric]:
    """Return the metrics of one source's rows, or of all, with their intervals.

    Args:
        names: of `ANSWER_METRICS`.
        rows: with their `scores` of each.
        source: what the metrics are said to be of.
    """
    if not rows:
        return [Metric(name=name, value=0.0, num_rows=0, source=source) for name in names]
    summed = {name: summed_scores(name, rows) for name in names}
    drawn = [name for name in names if not ANSWER_METRICS[name].is_binary]
    intervals = dict(zip(drawn, bootstrap_intervals([summed[n] for n in drawn]), strict=True))
    metrics: list[Metric] = []
    for name in names:
        metric = ANSWER_METRICS[name]
        value = value_of(summed[name])
        interval = intervals.get(name) or _wilson(value, len(rows))
        metrics.append(
            Metric(name=name, value=value, num_rows=len(rows), source=source, interval=interval)
        )
        if metric.is_readable is not None:
            share = sum(not metric.is_readable(row) for row in rows) / len(rows)
            metrics.append(
                Metric(
                    name=f"{name}_unreadable",
                    value=share,
                    num_rows=len(rows),
                    source=source,
                    interval=_wilson(share, len(rows)),
                )
            )
    return metrics


def _wilson(share: float, num_rows: int) -> Interval:
    low, high = wilson_interval(share, num_rows)
    return Interval(low=low, high=high, method="wilson")


def token_metrics(rows: Sequence[TokenScores], *, source: str, num_rows: int) -> list[Metric]:
    """Return token accuracy and loss with their intervals.

    Args:
        rows: that could be packed.
        source: what the metrics are said to be of.
        num_rows: that were answered.
    """
    summed = summed_tokens(rows)
    intervals = bootstrap_intervals(list(summed.values())) if rows else [None] * len(summed)
    return [
        Metric(
            name=name, value=value_of(score), num_rows=num_rows, source=source, interval=interval
        )
        for (name, score), interval in zip(summed.items(), intervals, strict=True)
    ]


def row_scores(names: Sequence[str], rows: Rows) -> list[dict[str, float]]:
    """Return each row's scores by name; those of captions depend on the rows beside it."""
    by_name = {name: ANSWER_METRICS[name].score_rows(rows) if rows else [] for name in names}
    return [{name: by_name[name][number] for name in names} for number in range(len(rows))]


def share_right(scores: Mapping[str, float]) -> float:
    """Return how right a row is, 0 to 1: its first score, as a share of the largest."""
    name, score = next(iter(scores.items()))
    return min(1.0, score / ANSWER_METRICS[name].largest)


def check_references(names: Sequence[str], row: Prediction) -> None:
    """Refuse a row that a metric cannot score, whatever the answer.

    Raises:
        SampleError: a metric of boxes, and no reference has one.
    """
    for name in names:
        if ANSWER_METRICS[name].needs_box and not any(map(read_box, row.references)):
            raise SampleError(
                f"`{name}` needs a box in the true answer: {shown_value(row.references[0])}",
                where=row.where,
                kind="bad_row",
                fix="write it as [x1, y1, x2, y2], or give the source another `metric`",
            )
