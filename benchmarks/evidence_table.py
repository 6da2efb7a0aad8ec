"""The table of the evidence: accuracy by question type, before, between and after, beside what needs no picture.

In: answers as `smolvlm eval --predictions` writes them, and the baselines' scores. Out: a table, its last column the
95 % interval (Wilson's) of the last state.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from smolvlm.commands.quickstart import read_predictions
from smolvlm.eval.metrics import accuracy_by_source
from smolvlm.pages.accuracy import wilson_interval

STATES = ("before", "warmed_up", "with_lora")
"""Files of answers, in the order of training."""
BASELINES = ("majority", "question_only")


def evidence_table(folder: Path, groups: Sequence[str], *, title: str) -> Table:
    """Return the table of one data set.

    Args:
        folder: holds `baselines.json` and a file of answers for each state.
        groups: question types, in order.
        title: of the table.
    """
    baselines = json.loads((folder / "baselines.json").read_text())
    scores = [accuracy_by_source(read_predictions(folder / f"{state}.jsonl")) for state in STATES]
    table = Table(title=f"{title}: held-out questions answered right, %", title_justify="left")
    table.add_column("question type", no_wrap=True)
    for heading in ("rows", *(name.replace("_", " ") for name in (*BASELINES, *STATES)), "95 % interval"):
        table.add_column(heading, justify="right")
    for group in groups:
        values = [baselines[name][group] for name in BASELINES] + [score[group][0] for score in scores]
        last, num_rows = scores[-1][group]
        low, high = wilson_interval(last, num_rows)
        cells = [f"{100 * value:.1f}" for value in values]
        table.add_row(group, f"{num_rows:,}", *cells, f"{100 * low:.0f} to {100 * high:.0f}")
    return table
