"""The scores of an evaluation's log line, and which of them are worse than before training.

In: lines of `metrics.jsonl`, that of step 0 being the untrained model's. Out: scores by metric and
source, and those that lie beyond the 95 % interval of the untrained model's on the bad side. A
source that is no part of what is learned says so of what the model could do before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smolvlm.config.eval_metrics import METRICS, PREFIX, is_greater_better

_ENDS = ("_ci95_low", "_ci95_high")
_NO_SCORES = tuple(f"{metric}_unreadable" for metric in METRICS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One number of an evaluation."""

    metric: str
    source: str
    """Empty where it is of all rows."""
    value: float
    low: float | None
    """Ends of its 95 % interval; None where that was not written."""
    high: float | None

    @property
    def interval(self) -> str:
        """`0.3500 to 0.4900`; empty without one."""
        if self.low is None or self.high is None:
            return ""
        return f"{self.low:.4f} to {self.high:.4f}"


@dataclass(frozen=True, kw_only=True, slots=True)
class WorseScore:
    """A score that training made worse."""

    before: Score
    now: Score

    def sentence(self) -> str:
        """Return `exact_match 0.1200 (was 0.3100)`."""
        return f"{self.now.metric} {self.now.value:.4f} (was {self.before.value:.4f})"


def scores_of(line: Mapping[str, float]) -> tuple[Score, ...]:
    """Return the scores that a log line holds, those over all rows first."""
    scores: list[Score] = []
    for key, value in line.items():
        name = key.removeprefix(PREFIX)
        if name == key or key.endswith(_ENDS) or name.startswith(_NO_SCORES):
            continue
        metric = _metric_of(name)
        if metric is not None:
            low, high = (line.get(f"{key}{end}") for end in _ENDS)
            source = name[len(metric) + 1 :]
            scores.append(Score(metric=metric, source=source, value=value, low=low, high=high))
    return tuple(sorted(scores, key=lambda score: score.source != ""))


def worse_scores(start: Mapping[str, float], now: Mapping[str, float]) -> tuple[WorseScore, ...]:
    """Return the scores beyond the interval of the untrained model's, on the bad side.

    Args:
        start: its line; empty where it was not evaluated.
        now: a later line.
    """
    before = {(score.metric, score.source): score for score in scores_of(start)}
    pairs = [(before.get((score.metric, score.source)), score) for score in scores_of(now)]
    return tuple(
        WorseScore(before=earlier, now=score)
        for earlier, score in pairs
        if earlier is not None and _is_worse(earlier, score)
    )


def worse_by_source(worse: Sequence[WorseScore]) -> dict[str, str]:
    """Return source -> which of its scores are worse, in words; `""` is all rows."""
    sources = dict.fromkeys(one.now.source for one in worse)
    return {
        source: ", ".join(one.sentence() for one in worse if one.now.source == source)
        for source in sources
    }


def _is_worse(before: Score, now: Score) -> bool:
    if before.low is None or before.high is None:
        return False
    if is_greater_better(now.metric):
        return now.value < before.low
    return now.value > before.high


def _metric_of(name: str) -> str | None:
    return next((one for one in METRICS if name == one or name.startswith(f"{one}_")), None)
