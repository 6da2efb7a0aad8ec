"""What a run left in its folder, as values: metrics, answers before and after, baselines.

In: `metrics.jsonl`, `predictions*.jsonl`, `baselines.json`, `run.yaml`; all but the first may be missing. Out: records
that the report prints. Accuracies come with the number of rows and a 95 % Wilson interval.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.errors import ConfigError

YES_NO = frozenset({"yes", "no"})
Z_95 = 1.959963984540054


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A share of rows answered right."""

    correct: float
    num_rows: int

    @property
    def value(self) -> float:
        return self.correct / self.num_rows if self.num_rows else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Return the 95 % Wilson score interval (Wilson 1927)."""
        if not self.num_rows:
            return 0.0, 1.0
        n, p = self.num_rows, self.value
        centre = (p + Z_95**2 / (2 * n)) / (1 + Z_95**2 / n)
        half = Z_95 / (1 + Z_95**2 / n) * math.sqrt(p * (1 - p) / n + Z_95**2 / (4 * n * n))
        return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupScores:
    """One group of held-out rows."""

    name: str
    after: Score
    before: Score | None
    baselines: dict[str, float]
    balanced: float | None
    """Mean of the recalls of yes and no, where the group's answers are these alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunData:
    """A run, read back."""

    name: str
    train: tuple[dict[str, Any], ...]
    """Lines of `metrics.jsonl` with a loss."""
    evaluations: tuple[dict[str, Any], ...]
    """Lines with `eval_` keys."""
    groups: tuple[GroupScores, ...]
    predictions: tuple[dict[str, Any], ...]
    settings: str


def read_run(run_dir: Path) -> RunData:
    """Read a run's folder.

    Raises:
        ConfigError: it holds no metrics.
    """
    metrics = run_dir / "metrics.jsonl"
    if not metrics.is_file():
        raise ConfigError("no metrics.jsonl here", where=str(run_dir), fix="give the output_dir of a run")
    lines = read_lines(metrics)
    after = read_lines(run_dir / "predictions.jsonl")
    before = read_lines(run_dir / "predictions-before.jsonl")
    baselines_file = run_dir / "baselines.json"
    baselines = json.loads(baselines_file.read_text()) if baselines_file.is_file() else {}
    settings = run_dir / "run.yaml"
    return RunData(
        name=run_dir.resolve().name,
        train=tuple(line for line in lines if "loss" in line),
        evaluations=tuple(line for line in lines if any(key.startswith("eval_") for key in line)),
        groups=tuple(group_scores(after, before, baselines)),
        predictions=tuple(after),
        settings=settings.read_text() if settings.is_file() else "",
    )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON-lines file, none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def group_scores(
    after: Sequence[dict[str, Any]], before: Sequence[dict[str, Any]], baselines: dict[str, dict[str, float]]
) -> list[GroupScores]:
    """Return the accuracy of every group of rows, in the order of their names."""
    names = sorted({row["group"] for row in after})
    return [
        GroupScores(
            name=name,
            after=_score(after, name),
            before=_score(before, name) if any(row["group"] == name for row in before) else None,
            baselines={title: scores[name] for title, scores in baselines.items() if name in scores},
            balanced=balanced_accuracy([row for row in after if row["group"] == name]),
        )
        for name in names
    ]


def _score(rows: Sequence[dict[str, Any]], group: str) -> Score:
    own = [float(row["correct"]) for row in rows if row["group"] == group]
    return Score(correct=sum(own), num_rows=len(own))


def balanced_accuracy(rows: Sequence[dict[str, Any]]) -> float | None:
    """Return the mean of the recalls of yes and no; None where other answers occur, or one of the two never."""
    by_truth: dict[str, list[float]] = {}
    for row in rows:
        by_truth.setdefault(row["references"][0].lower(), []).append(float(row["correct"]))
    if by_truth.keys() != YES_NO:
        return None
    return sum(sum(own) / len(own) for own in by_truth.values()) / 2


def gallery(rows: Sequence[dict[str, Any]], *, size: int) -> list[dict[str, Any]]:
    """Return a few rows with pictures, half of them wrong where there are so many, evenly spread over the set."""
    with_picture = [row for row in rows if row["images"]]
    wrong = [row for row in with_picture if row["correct"] < 1]
    right = [row for row in with_picture if row["correct"] >= 1]
    num_wrong = min(len(wrong), max(size // 2, size - len(right)))
    return _spread(right, size - num_wrong) + _spread(wrong, num_wrong)


def _spread(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    count = min(count, len(rows))
    return [rows[(2 * number + 1) * len(rows) // (2 * count)] for number in range(count)]
