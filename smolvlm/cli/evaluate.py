"""`smolvlm eval`: a held-out set answered and scored."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from smolvlm.eval.evaluate import Evaluation, Metric, write_predictions
from smolvlm.runs.evaluation import evaluate_checkpoint
from smolvlm.runs.evaluation_settings import evaluated_config
from smolvlm.runs.model import with_model


def run_evaluation(
    target: str,
    overrides: Sequence[str],
    *,
    mixture: Path | None,
    predictions: Path | None,
    as_json: bool,
) -> Evaluation:
    """Evaluate a run folder or a checkpoint, and print its metrics."""
    evaluation = evaluate_checkpoint(
        with_model(evaluated_config(target, overrides, mixture=mixture))
    )
    if predictions is not None:
        write_predictions(evaluation.predictions, predictions)
    show_metrics(evaluation.metrics, as_json=as_json)
    return evaluation


def show_metrics(metrics: Sequence[Metric], *, as_json: bool) -> None:
    """Print metrics: JSON lines on standard output, or a table on standard error."""
    if as_json:
        for metric in metrics:
            row = {
                "name": metric.name,
                "value": metric.value,
                "num_rows": metric.num_rows,
                "source": metric.source,
            }
            print(json.dumps(row))
        return
    table = Table("source", "metric", "value", "rows", box=None)
    for metric in metrics:
        table.add_row(metric.source, metric.name, f"{metric.value:.4f}", f"{metric.num_rows:,}")
    Console(file=sys.stderr).print(table)
