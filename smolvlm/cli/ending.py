"""What is said when a run has ended: where things lie, what it answers now, and what comes next.

In: the run's folder. Out: lines for a person.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from smolvlm.checkpoints.peft_layers import is_adapter_folder
from smolvlm.report.best import best_of_run
from smolvlm.report.files import read_metrics

NUM_ANSWERS = 3
FEW_STEPS = 10
"""Fewer than these and hardly anything is learned, whatever the rows are."""
_SHOWN = 60
"""Characters of a question or an answer."""


def ending_lines(out: Path, *, base: str, num_steps: int) -> list[str]:
    """Return what is said of a finished run.

    Args:
        out: its folder.
        base: `model.path` of its settings.
        num_steps: that it took in all.
    """
    is_adapter = is_adapter_folder(out)
    kind = f"an adapter of {base}" if is_adapter else "loads in plain transformers"
    lines = ["", f"model    {out}  ({kind})", f"report   {out / 'report.html'}"]
    lines += _best(out)
    lines += _answers(out)
    folder, merge = shlex.quote(str(out)), " --merge" if is_adapter else ""
    lines += [
        f"next     smolvlm chat {folder} --base",
        f"         smolvlm export {folder} --to transformers --out DIR{merge}",
    ]
    if num_steps < FEW_STEPS:
        steps = f"{num_steps} step{'s' * (num_steps != 1)}"
        fix = "raise train.num_train_epochs, or lower train.packs_per_step"
        lines.append(f"note: {steps} in all: too few to learn; {fix}")
    return lines


def _best(out: Path) -> Iterator[str]:
    """Yield which checkpoint the model is that of, where the best was asked for."""
    _, evals = read_metrics(out / "metrics.jsonl")
    settings = out / "run.yaml"
    text = settings.read_text(encoding="utf-8") if settings.is_file() else ""
    if (found := best_of_run(text, evals)) is not None:
        best_by, best = found
        yield f"best     {out / f'checkpoint-{best.step}'}  ({best_by} {best.value:.4f}: the model)"


def _answers(out: Path) -> Iterator[str]:
    """Yield some answers, wrong ones and right ones, beside those of the untrained model."""
    now = _rows(out / "predictions.jsonl")
    before = {row["where"]: row["prediction"] for row in _rows(out / "predictions-before.jsonl")}
    for number, row in enumerate(_mixed(now)):
        head = "answers" if number == 0 else ""
        verdict = "right" if row["correct"] == 1 else f"wanted {_short(row['references'][0])}"
        if (earlier := before.get(row["where"])) is not None and earlier != row["prediction"]:
            verdict += f"; before: {_short(earlier)}"
        yield f"{head:9}{_short(row['question'])}: {_short(row['prediction'])}  ({verdict})"


def _mixed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a few rows of several sources in turn, a wrong answer first where there is one."""
    by_source: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["correct"] == 1):
        by_source.setdefault(row["source"], []).append(row)
    chosen: list[dict[str, Any]] = []
    for turn in range(NUM_ANSWERS):
        # The first of a source is a wrong one; then from its end, where the right ones are.
        chosen += [kept[-turn] for kept in by_source.values() if turn < len(kept)]
    return chosen[:NUM_ANSWERS]


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _short(text: str) -> str:
    words = " ".join(text.split())
    return repr(words if len(words) <= _SHOWN else words[: _SHOWN - 3] + "...")
