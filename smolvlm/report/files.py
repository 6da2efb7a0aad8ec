"""What a run left in its output folder, read back: metrics, settings, starts, answers.

Missing files are simply not there. A last line cut short by a killed run is passed over; any other
damage is an error.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from sys import float_info
from typing import Any, TypeGuard, TypeVar

from smolvlm.config.eval_metrics import ANSWER_METRICS
from smolvlm.errors import ConfigError, SampleError, located
from smolvlm.eval.prediction import Prediction
from smolvlm.report.planned import PLAN_FILE
from smolvlm.report.progress import Progress, read_progress

Value = TypeVar("Value")

Metrics = Mapping[str, float]
"""One logged line: its finite numbers by key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceRows:
    """What a run learns from one source."""

    name: str
    num_rows: int
    """In its files."""
    num_used: int
    """Chosen by its sampling, and whole."""
    repeat: float
    """Times an epoch goes through those."""
    num_tokens: int
    """Of those, once through."""
    num_tiles: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """One start of a run, as `run.json` describes it."""

    step: int
    """Step that it went on from; 0 is the beginning."""
    device: Mapping[str, object]
    kernels: Mapping[str, object]
    versions: Mapping[str, object]
    commit: str | None
    is_modified: bool
    started_at: str = ""
    """ISO 8601; empty where that was not written."""
    seconds: float | None = None
    """How long it took in all; None of one that was stopped."""
    sources: tuple[SourceRows, ...] = ()


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
            "no such folder", where=str(run_dir), fix="give the output_dir of a run that has begun"
        )
    if not metrics.is_file() and not predictions.is_file():
        raise ConfigError(
            "neither metrics.jsonl nor predictions.jsonl here",
            where=str(run_dir),
            fix="give the output_dir of a run that has begun",
        )
    train, evals = read_metrics(metrics)
    with located(str(run_dir / "run.json")):
        starts = _read_starts(run_dir / "run.json")
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
    for step, line in _json_lines(path, lambda line: (_number(line, "step"), line)):
        numbers = {key: float(value) for key, value in line.items() if _is_finite_number(value)}
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
    return tuple(_json_lines(path, _prediction))


def read_answer_lines(path: Path) -> dict[int, tuple[Prediction, ...]]:
    """Return what `answers.jsonl` holds: the answers by step; nothing where there is no file.

    Raises:
        SampleError: a line is damaged or lacks a key; names file and line.
    """
    return dict(_json_lines(path, _answer_line))


def _answer_line(line: Mapping[str, object]) -> tuple[int, tuple[Prediction, ...]]:
    rows = line.get("answers")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _wrong("a list of objects as `answers`")
    return int(_number(line, "step")), tuple(map(_prediction, rows))


def _prediction(line: Mapping[str, object]) -> Prediction:
    return Prediction(
        where=_text(line, "where"),
        source=_text(line, "source"),
        group=_text(line, "group"),
        question=_text(line, "question"),
        answer=_text(line, "prediction"),
        references=_texts(line, "references"),
        correct=_share(line, "correct"),
        images=_texts(line, "images"),
        scores=_scores(line),
    )


def _scores(line: Mapping[str, object]) -> dict[str, float]:
    """Return a row's scores by metric; none of a file that was written without."""
    scores = _object(line, "scores") if "scores" in line else {}
    return {name: _number(scores, name) for name in scores if name in ANSWER_METRICS}


def _read_starts(path: Path) -> tuple[Start, ...]:
    if not path.is_file():
        return ()
    newest = _json_file(path)
    earlier = newest.get("earlier", []) if isinstance(newest, dict) else None
    if not isinstance(earlier, list) or not all(isinstance(start, dict) for start in earlier):
        raise _wrong("an object, with a list of objects as `earlier`")
    return tuple(_start(content) for content in (*earlier, newest))


def _start(content: Mapping[str, object]) -> Start:
    device, kernels, versions = (
        _object(content, name) for name in ("device", "kernels", "versions")
    )
    commit = content.get("commit")
    return Start(
        step=int(_number({"step": 0, **content}, "step")),
        device=device,
        kernels=kernels,
        versions=versions,
        commit=None if commit is None else _text(content, "commit"),
        is_modified=content.get("modified") is True,
        started_at=_text({"started_at": "", **content}, "started_at"),
        seconds=_number(content, "seconds") if "seconds" in content else None,
        sources=_sources(content.get("sources", [])),
    )


def _sources(value: object) -> tuple[SourceRows, ...]:
    if not isinstance(value, list) or not all(isinstance(source, dict) for source in value):
        raise _wrong("a list of objects as `sources`")
    return tuple(
        SourceRows(
            name=_text(source, "name"),
            num_rows=int(_number(source, "num_rows")),
            num_used=int(_number(source, "num_used")),
            repeat=_number(source, "repeat"),
            num_tokens=int(_number(source, "num_tokens")),
            num_tiles=int(_number(source, "num_tiles")),
        )
        for source in value
    )


def _read_plan(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    with located(str(path)):
        content = _json_file(path)
        if not isinstance(content, dict):
            raise _wrong("an object")
    return content


def _json_file(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        fix = "write it again, or delete it"
        raise SampleError(f"not JSON ({error})", kind="bad_file", fix=fix) from error


def _read_baselines(path: Path) -> Mapping[str, Mapping[str, float]]:
    if not path.is_file():
        return {}
    content = _json_file(path)
    if not isinstance(content, dict) or not all(
        isinstance(groups, dict) for groups in content.values()
    ):
        raise _wrong("an object of objects: baseline, group, accuracy")
    shares: dict[str, Mapping[str, float]] = {}
    for name, groups in content.items():
        with located(f"{path}: {name}"):
            shares[name] = {group: _share(groups, group) for group in groups}
    return shares


def _json_lines(path: Path, read: Callable[[dict[str, object]], Value]) -> Iterator[Value]:
    """Yield what is read of each line; an error names the line."""
    if not path.is_file():
        return
    lines = [
        line
        for line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1)
        if line[1].strip()
    ]
    for number, line in lines:
        with located(f"{path}:{number}"):
            try:
                content = json.loads(line)
            except json.JSONDecodeError as error:
                if number == lines[-1][0]:
                    return  # the run was stopped while writing it
                raise SampleError(
                    f"not JSON ({error})", kind="bad_file", fix="delete the line"
                ) from error
            if not isinstance(content, dict):
                raise _wrong("an object")
            value = read(content)
        yield value


def _by_step(lines: Mapping[float, Metrics]) -> tuple[Metrics, ...]:
    return tuple(lines[step] for step in sorted(lines))


def _is_finite_number(value: object) -> TypeGuard[int | float]:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and abs(value) <= float_info.max
    )


def _number(line: Mapping[str, object], key: str) -> float:
    if not _is_finite_number(value := line.get(key)):
        raise _wrong(f"a number as `{key}`")
    return float(value)


def _share(line: Mapping[str, object], key: str) -> float:
    is_right = line.get(key)
    value = float(is_right) if isinstance(is_right, bool) else _number(line, key)
    if not 0 <= value <= 1:
        raise _wrong(f"a share from 0 to 1 as `{key}`")
    return value


def _text(line: Mapping[str, object], key: str) -> str:
    if not isinstance(value := line.get(key), str):
        raise _wrong(f"text as `{key}`")
    return value


def _object(line: Mapping[str, object], key: str) -> Mapping[str, object]:
    if not isinstance(value := line.get(key), dict):
        raise _wrong(f"an object as `{key}`")
    return value


def _texts(line: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = line.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _wrong(f"a list of texts as `{key}`")
    return tuple(value)


def _wrong(expected: str) -> SampleError:
    return SampleError(f"expected {expected}", kind="bad_file", fix="write the file again")
