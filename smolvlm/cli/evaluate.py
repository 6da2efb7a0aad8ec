"""`smolvlm eval`: a held-out set answered and scored."""

from collections.abc import Sequence
from pathlib import Path

from smolvlm.cli.tables import print_table
from smolvlm.eval.comparison import Difference, differences
from smolvlm.eval.evaluate import ALL_SOURCES, Evaluation
from smolvlm.eval.prediction_files import write_predictions
from smolvlm.eval.scoring import Metric
from smolvlm.generate.kept_answers import KeptAnswers, is_kept
from smolvlm.runs.evaluation import base_config, evaluate_checkpoint
from smolvlm.runs.evaluation_place import leave_ranks, started_rank
from smolvlm.runs.evaluation_settings import evaluated_config
from smolvlm.runs.model import with_model
from smolvlm.terminal import console as terminal_console
from smolvlm.terminal import say, say_json


def run_evaluation(
    target: str,
    overrides: Sequence[str],
    *,
    mixture: Path | None,
    predictions: Path | None,
    base: bool = False,
    as_json: bool,
) -> Evaluation:
    """Evaluate a run folder or a checkpoint, and print which model it was and its metrics.

    Args:
        target: a run folder, a checkpoint or a hub id.
        overrides: of the run's settings.
        mixture: in place of the run's held-out one.
        predictions: where every answer goes; a stopped evaluation goes on from there.
        base: whether what it was trained from answers too.
        as_json: whether metrics are printed as objects.
    """
    config = evaluated_config(target, overrides, mixture=mixture)
    of_base = with_model(base_config(config, target=target)) if base else None
    rank, kept = started_rank(), None
    if predictions is not None and is_kept(predictions):
        kept = KeptAnswers(predictions, rank=rank)
    evaluation = evaluate_checkpoint(with_model(config), kept=kept)
    other = None
    if of_base is not None:
        other = evaluate_checkpoint(of_base, kept=kept, beside=config.model.path)
    num_used = leave_ranks(0 if kept is None else kept.num_used)
    if rank:
        return evaluation
    _tell(evaluation, other, predictions=predictions, as_json=as_json)
    if kept is not None:
        kept.finish()
        if num_used:
            say(f"{num_used:,} answers were there already")
    return evaluation


def _tell(
    evaluation: Evaluation,
    other: Evaluation | None,
    *,
    predictions: Path | None,
    as_json: bool,
) -> None:
    """Write the answers and print the metrics: the first process alone, which has them all."""
    say(f"scored: {evaluation.model}")
    if other is not None:
        say(f"beside: {other.model}")
    if predictions is not None:
        others = None if other is None else other.predictions
        write_predictions(evaluation.predictions, predictions, base=others)
    found = [] if other is None else differences(evaluation, other)
    if as_json:
        _print_objects(evaluation, found)
    elif other is None:
        show_metrics(evaluation.metrics)
    else:
        show_differences(found)


def _print_objects(evaluation: Evaluation, found: Sequence[Difference]) -> None:
    """Print a JSON line a metric; each says which model it is of."""
    model = evaluation.model
    by_metric = {(one.source, one.name): one for one in found}
    for metric in evaluation.metrics:
        row: dict[str, object] = {
            "name": metric.name,
            "value": metric.value,
            "num_rows": metric.num_rows,
            "source": metric.source,
        }
        if (interval := metric.interval) is not None:
            row |= {"low": interval.low, "high": interval.high, "interval": interval.method}
        if model is not None:
            adapter = model.checkpoint if model.is_adapter else None
            row |= {"checkpoint": model.checkpoint, "base": model.base, "adapter": adapter}
        if (beside := by_metric.get((metric.source, metric.name))) is not None:
            row |= {
                "base_value": beside.base,
                "difference": beside.difference,
                "difference_low": beside.interval.low,
                "difference_high": beside.interval.high,
                "compared_rows": beside.num_rows,
            }
        say_json(row)


def show_differences(found: Sequence[Difference]) -> None:
    """Print a table of both models on standard error, and what got worse."""
    columns = ("source", "metric", "base", "model", "difference", "95 % interval", "rows")
    rows: list[tuple[str, ...]] = []
    for one in found:
        ends = f"{one.interval.low:+.4f} to {one.interval.high:+.4f}"
        values = (f"{one.base:.4f}", f"{one.value:.4f}", f"{one.difference:+.4f}", ends)
        rows.append((one.source, one.name, *values, f"{one.num_rows:,}"))
    print_table(terminal_console(), columns, rows, num_names=2)
    for source in dict.fromkeys(one.source for one in found if one.is_worse):
        names = [one.name for one in found if one.is_worse and one.source == source]
        where = "" if source == ALL_SOURCES else f" on {source}"
        say(f"worse than the base{where}, beyond the 95 % interval: {', '.join(names)}")


def show_metrics(metrics: Sequence[Metric]) -> None:
    """Print a table on standard error."""
    columns = ("source", "metric", "value", "95 % interval", "rows")
    rows: list[tuple[str, ...]] = []
    for metric in metrics:
        ends = metric.interval
        shown = "" if ends is None else f"{ends.low:.4f} to {ends.high:.4f}"
        value, num_rows = f"{metric.value:.4f}", f"{metric.num_rows:,}"
        rows.append((metric.source, metric.name, value, shown, num_rows))
    print_table(terminal_console(), columns, rows, num_names=2)
