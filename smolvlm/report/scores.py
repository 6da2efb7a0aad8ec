"""The metrics that a run chose for its sources, as a table of its page.

In: answers with their scores. Out: a line for each source and metric. A run with the default
metrics alone has none: its page shows accuracy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from smolvlm.config.eval_metrics import DEFAULT_METRICS
from smolvlm.eval.prediction import Prediction
from smolvlm.eval.scoring import Metric, answer_metrics


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """One metric of one source."""

    after: Metric
    before: Metric | None


def score_rows(after: Sequence[Prediction], before: Sequence[Prediction]) -> tuple[ScoreRow, ...]:
    """Return the lines, sources in the order of their names; none where no source chose a metric.

    Args:
        after: answers of the trained model.
        before: those of the untrained one; may be empty.
    """
    if all(tuple(row.scores) in ((), DEFAULT_METRICS) for row in after):
        return ()
    earlier = {(one.source, one.name): one for one in _metrics(before)}
    return tuple(
        ScoreRow(after=one, before=earlier.get((one.source, one.name))) for one in _metrics(after)
    )


def _metrics(rows: Sequence[Prediction]) -> list[Metric]:
    metrics: list[Metric] = []
    for source in sorted({row.source for row in rows if row.scores}):
        scored = [row for row in rows if row.source == source and row.scores]
        metrics += answer_metrics(tuple(scored[0].scores), scored, source=source)
    return metrics
