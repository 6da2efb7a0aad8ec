"""`smolvlm eval`: a held-out set answered and scored."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from smolvlm.eval.evaluate import Evaluation
from smolvlm.eval.prediction_files import write_predictions
from smolvlm.eval.scoring import Metric
from smolvlm.runs.evaluation import evaluate_checkpoint
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
    as_json: bool,
) -> Evaluation:
    """Evaluate a run folder or a checkpoint, and print which model it was and its metrics."""
    evaluation = evaluate_checkpoint(
        with_model(evaluated_config(target, overrides, mixture=mixture))
    )
    if predictions is not None:
        write_predictions(evaluation.predictions, predictions)
    say(f"scored: {evaluation.model}")
    if as_json:
        _print_objects(evaluation)
    else:
        show_metrics(evaluation.metrics)
    return evaluation


def _print_objects(evaluation: Evaluation) -> None:
    """Print a JSON line a metric; each says which model it is of."""
    model = evaluation.model
    for metric in evaluation.metrics:
        row = {
            "name": metric.name,
            "value": metric.value,
            "num_rows": metric.num_rows,
            "source": metric.source,
        }
        interval = metric.interval
        if interval is not None:
            row |= {"low": interval.low, "high": interval.high, "interval": interval.method}
        if model is not None:
            adapter = model.checkpoint if model.is_adapter else None
            row |= {"checkpoint": model.checkpoint, "base": model.base, "adapter": adapter}
        say_json(row)


def show_metrics(metrics: Sequence[Metric]) -> None:
    """Print a table on standard error."""
    table = Table("source", "metric", "value", "95 % interval", "rows", box=None)
    for metric in metrics:
        ends = metric.interval
        shown = "" if ends is None else f"{ends.low:.4f} to {ends.high:.4f}"
        table.add_row(
            metric.source, metric.name, f"{metric.value:.4f}", shown, f"{metric.num_rows:,}"
        )
    terminal_console().print(table)
