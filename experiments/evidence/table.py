"""The table of the evidence: accuracy by question type, before, between and after, beside what
needs no picture.

In: answers as `smolvlm eval --predictions` writes them, and the baselines' scores. Out: a table,
its last column the 95 % interval (Wilson's) of the last state.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from smolvlm.eval.prediction import accuracy_by_source
from smolvlm.report.accuracy import wilson_interval
from smolvlm.report.files import read_predictions

BASELINES = ("majority", "question_only")


def evidence_table(
    folder: Path, stages: Sequence[str], groups: Sequence[str], *, title: str
) -> Table:
    """Return the table of one data set.

    Args:
        folder: holds `baselines.json`, and for each stage its run's folder and a file of answers.
        stages: in the order of training; what the first run noted as it began are the answers
            before.
        groups: question types, in order.
        title: of the table.
    """
    before = folder / stages[0] / "predictions-before.jsonl"
    answers = [before, *(folder / f"{stage}.jsonl" for stage in stages)]
    baselines = json.loads((folder / "baselines.json").read_text())
    scores = [accuracy_by_source(read_predictions(file)) for file in answers]
    table = Table(title=f"{title}: held-out questions answered right, %", title_justify="left")
    table.add_column("question type", no_wrap=True)
    for heading in (
        "rows",
        *(name.replace("_", " ") for name in (*BASELINES, "before", *stages)),
        "95 % interval",
    ):
        table.add_column(heading, justify="right")
    for group in groups:
        values = [baselines[name][group] for name in BASELINES] + [
            score[group][0] for score in scores
        ]
        last, num_rows = scores[-1][group]
        low, high = wilson_interval(last, num_rows)
        cells = [f"{100 * value:.1f}" for value in values]
        table.add_row(group, f"{num_rows:,}", *cells, f"{100 * low:.0f} to {100 * high:.0f}")
    return table
