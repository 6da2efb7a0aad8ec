"""What a run left in its output folder, read back: metrics, settings, starts, answers.

Missing files are simply not there. A last line cut short by a killed run is passed over; any other
damage is an error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smolvlm.config.eval_metrics import ANSWER_METRICS
from smolvlm.errors import ConfigError, located
from smolvlm.eval.prediction import Prediction
from smolvlm.report.json_files import (
    is_finite_number,
    number_of,
    object_of,
    read_json_file,
    read_json_lines,
    share_of,
    text_of,
    texts_of,
    wrong,
)
from smolvlm.report.planned import PLAN_FILE
from smolvlm.report.progress import Progress, read_progress
from smolvlm.report.starts import Start, read_starts

Metrics = Mapping[str, float]
"""One logged line: its finite numbers by key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFiles:
    """An output folder, read."""

    run_dir: Path
    settings: str
    """Text of `run.yaml`; empty where there is none."""
    starts: tuple[Start, ...]
    """Of `run.json`, oldest first; empty where there is none."""
    train: tuple[Metrics, ...]
    """Training lines by step; of a step that was logged twice (a resumed run), the last."""
    evals: tuple[Metrics, ...]
    """The same, of evaluation lines."""
    before: tuple[Prediction, ...]
    after: tuple[Prediction, ...]
    """None of either while it trains: those in the folder are of an earlier end."""
    baselines: Mapping[str, Mapping[str, float]]
    """Name of a baseline to its accuracy by group."""
    plan: Mapping[str, Any] = field(default_factory=dict)
    """Of `plan.json`, which `smolvlm plan` leaves; empty where there is none."""
    progress: Progress | None = None
    """How far it is; None where it is not training."""


def read_run_files(run_dir: Path) -> RunFiles:
    """Read an output folder.

    Raises:
        ConfigError: it holds neither metrics nor predictions.
        SampleError: a line is damaged or lacks a key; names file and line.
    """
    metrics, predictions = run_dir / "metrics.jsonl", run_dir / "predictions.jsonl"
    if not run_dir.is_dir():
        raise ConfigError(
            "no such folder: a run makes its own once its rows are measured",
            where=str(run_dir),
            fix="wait until it trains, or give the output_dir of a run that has begun",
        )
    if not metrics.is_file() and not predictions.is_file():
        raise ConfigError(
            "neither metrics.jsonl nor predictions.jsonl here: no run has written anything yet",
            where=str(run_dir),
            fix="wait for its first log line (train.logging_steps), or give the output_dir of a "
            "run that has begun",
        )
    train, evals = read_metrics(metrics)
    with located(str(run_dir / "run.json")):
        starts = read_starts(run_dir / "run.json")
    with located(str(run_dir / "baselines.json")):
        baselines = _read_baselines(run_dir / "baselines.json")
    settings, progress = run_dir / "run.yaml", read_progress(run_dir)
    return RunFiles(
        run_dir=run_dir,
        settings=settings.read_text(encoding="utf-8") if settings.is_file() else "",
        train=train,
        evals=evals,
        starts=starts,
        before=() if progress else read_predictions(run_dir / "predictions-before.jsonl"),
        after=() if progress else read_predictions(predictions),
        baselines=baselines,
        plan=_read_plan(run_dir / PLAN_FILE),
        progress=progress,
    )


def read_metrics(path: Path) -> tuple[tuple[Metrics, ...], tuple[Metrics, ...]]:
    """Return the lines of steps and those of evaluations; none where there is no file.

    Raises:
        SampleError: a line is damaged; names file and line.
    """
    train: dict[float, dict[str, float]] = {}
    evals: dict[float, dict[str, float]] = {}
    for step, line in read_json_lines(path, lambda line: (number_of(line, "step"), line)):
        numbers = {key: float(value) for key, value in line.items() if is_finite_number(value)}
        if any(key.startswith("eval_") for key in line):
            evals[step] = evals.get(step, {}) | numbers
        elif "loss" in line:
            train[step] = numbers
    return _by_step(train), _by_step(evals)


def training_seconds(train: Sequence[Metrics]) -> float:
    """Return the time between the log lines: each says its samples and its samples a second."""
    return sum(
        line.get("num_samples", 0) / line["samples_per_s"]
        for line in train
        if line.get("samples_per_s")
    )


def read_predictions(path: Path) -> tuple[Prediction, ...]:
    """Return what `write_predictions` wrote; nothing where there is no file.

    Raises:
        SampleError: a line is damaged or lacks a key; names file and line.
    """
    return tuple(read_json_lines(path, _prediction))


def read_answer_lines(path: Path) -> dict[int, tuple[Prediction, ...]]:
    """Return what `answers.jsonl` holds: the answers by step; nothing where there is no file.

    Raises:
        SampleError: a line is damaged or lacks a key; names file and line.
    """
    return dict(read_json_lines(path, _answer_line))


def _answer_line(line: Mapping[str, object]) -> tuple[int, tuple[Prediction, ...]]:
    rows = line.get("answers")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise wrong("a list of objects as `answers`")
    return int(number_of(line, "step")), tuple(map(_prediction, rows))


def _prediction(line: Mapping[str, object]) -> Prediction:
    return Prediction(
        where=text_of(line, "where"),
        source=text_of(line, "source"),
        group=text_of(line, "group"),
        question=text_of(line, "question"),
        answer=text_of(line, "prediction"),
        references=texts_of(line, "references"),
        correct=share_of(line, "correct"),
        images=texts_of(line, "images"),
        scores=_scores(line),
    )


def _scores(line: Mapping[str, object]) -> dict[str, float]:
    """Return a row's scores by metric; none of a file that was written without."""
    scores = object_of(line, "scores") if "scores" in line else {}
    return {name: number_of(scores, name) for name in scores if name in ANSWER_METRICS}


def _read_plan(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    with located(str(path)):
        content = read_json_file(path)
        if not isinstance(content, dict):
            raise wrong("an object")
    return content


def _read_baselines(path: Path) -> Mapping[str, Mapping[str, float]]:
    if not path.is_file():
        return {}
    content = read_json_file(path)
    if not isinstance(content, dict) or not all(
        isinstance(groups, dict) for groups in content.values()
    ):
        raise wrong("an object of objects: baseline, group, accuracy")
    shares: dict[str, Mapping[str, float]] = {}
    for name, groups in content.items():
        with located(f"{path}: {name}"):
            shares[name] = {group: share_of(groups, group) for group in groups}
    return shares


def _by_step(lines: Mapping[float, Metrics]) -> tuple[Metrics, ...]:
    return tuple(lines[step] for step in sorted(lines))
