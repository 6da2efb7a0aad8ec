"""The names of the numbers that an evaluation writes, as `train.metric_for_best_model` may call
them."""

from collections.abc import Mapping, Sequence

from smolvlm.config.suggestions import did_you_mean

ANSWER_METRICS = (
    "exact_match",
    "vqa_accuracy",
    "anls",
    "relaxed_accuracy",
    "multiple_choice",
    "bleu",
    "cider_d",
    "iou",
    "box_accuracy",
    "point_in_box",
)
"""What answers may be scored by: `eval.metric`, and a source's `metric`."""
DEFAULT_METRICS = ("exact_match", "vqa_accuracy")
TOKEN_METRICS = ("token_accuracy", "loss")
"""Of the true answers; always written."""
METRICS = (*ANSWER_METRICS, *TOKEN_METRICS)
"""Each over all rows; where there are several sources, `NAME_SOURCE` over those of one."""
PREFIX = "eval_"
_LOWER_IS_BETTER = "loss"


def plain_name(metric: str) -> str:
    """Return a metric's name without the prefix that transformers puts before it."""
    return metric.removeprefix(PREFIX)


def is_greater_better(metric: str) -> bool:
    """Say whether more of a metric is better, of one source too."""
    name = plain_name(metric)
    return name != _LOWER_IS_BETTER and not name.startswith(f"{_LOWER_IS_BETTER}_")


def metric_names(value: object) -> tuple[str, ...] | None:
    """Return the metrics that a setting names, one or a list; None where it is neither."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(one, str) for one in names):
        return None
    return tuple(dict.fromkeys(names))


def unknown_metric(names: Sequence[str]) -> tuple[str, str] | None:
    """Return what is wrong with the first unknown name, and what to write; None where all are
    known."""
    for name in names:
        if name not in ANSWER_METRICS:
            listed = f"the metrics are {', '.join(ANSWER_METRICS)}"
            return f"`{name}` is no metric of answers", did_you_mean(name, ANSWER_METRICS) or listed
    return None


def metric_problem(metric: str, sources: Mapping[str, Sequence[str]] | None = None) -> str | None:
    """Return why no evaluation writes a metric, and what is probably meant; None for a known one.

    Args:
        metric: as the settings name it, with or without `eval_`.
        sources: the held-out mixture's sources, each with the metrics of its answers; None where
            they are not known yet, and any name may be one.
    """
    name = plain_name(metric)
    if sources is None:
        if name in METRICS or any(name.startswith(f"{one}_") for one in METRICS):
            return None
        known: list[str] = list(METRICS)
    else:
        known = written_names(sources)
    if name in known:
        return None
    meant = did_you_mean(name, known)
    return f"no evaluation writes it, only {', '.join(known)}" + (f"; {meant}" if meant else "")


def written_names(sources: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the names that an evaluation writes.

    Over all rows stand the metrics that every source has.

    Args:
        sources: each with the metrics of its answers.
    """
    shared = [one for one in ANSWER_METRICS if all(one in names for names in sources.values())]
    known = [*shared, *TOKEN_METRICS]
    if len(sources) > 1:
        for source, names in sources.items():
            known += [f"{one}_{source}" for one in (*names, *TOKEN_METRICS)]
    return known
