"""The names of the numbers that an evaluation writes, as `train.metric_for_best_model` may call
them."""

from collections.abc import Sequence

from smolvlm.config.suggestions import did_you_mean

METRICS = ("exact_match", "vqa_accuracy", "loss")
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


def metric_problem(metric: str, sources: Sequence[str] | None = None) -> str | None:
    """Return why no evaluation writes a metric, and what is probably meant; None for a known one.

    Args:
        metric: as the settings name it, with or without `eval_`.
        sources: names of the held-out mixture's sources; None where they are not known yet, and any
            name may be one.
    """
    name = plain_name(metric)
    if name in METRICS:
        return None
    if sources is None and any(name.startswith(f"{one}_") for one in METRICS):
        return None
    by_source = sources if sources is not None and len(sources) > 1 else ()
    known = [*METRICS, *(f"{one}_{source}" for one in METRICS for source in by_source)]
    if name in known:
        return None
    meant = did_you_mean(name, known)
    return f"no evaluation writes it, only {', '.join(known)}" + (f"; {meant}" if meant else "")
