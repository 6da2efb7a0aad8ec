"""A run's output folder, written by hand."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

WriteRun = Callable[..., Path]


@pytest.fixture(scope="session")
def write_run(tmp_path_factory: pytest.TempPathFactory) -> WriteRun:
    """Writes an output folder: metrics of some steps, predictions as given; returns it."""

    def write(
        *,
        steps: int = 20,
        after: Sequence[dict[str, Any]] = (),
        before: Sequence[dict[str, Any]] = (),
        baselines: dict[str, dict[str, float]] | None = None,
        settings: str = "",
        start: dict[str, Any] | None = None,
    ) -> Path:
        run_dir = tmp_path_factory.mktemp("run")
        write_lines(run_dir / "metrics.jsonl", [train_line(step) for step in range(1, steps + 1)])
        for name, rows in (("predictions.jsonl", after), ("predictions-before.jsonl", before)):
            if rows:
                write_lines(run_dir / name, rows)
        if baselines is not None:
            (run_dir / "baselines.json").write_text(json.dumps(baselines))
        if settings:
            (run_dir / "run.yaml").write_text(settings)
        if start is not None:
            (run_dir / "run.json").write_text(json.dumps(start))
        return run_dir

    return write


@pytest.fixture(scope="session")
def start_of() -> Callable[..., dict[str, Any]]:
    """Makes one start as `run.json` describes it; changes are of its kernels."""
    return start


def start(*, step: int = 0, device: dict[str, Any] | None = None, **kernels: Any) -> dict[str, Any]:
    usual = {"weights_dtype": "float32", "autocast_dtype": None, "torch_compile": False}
    return {
        "started_at": "2026-01-31T12:00:00+00:00",
        "step": step,
        "device": device or {"type": "cpu", "name": "A CPU", "num_ranks": 1, "num_threads": 2},
        "kernels": usual | kernels,
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "modified": True,
    }


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def train_line(step: int, **changes: float) -> dict[str, float]:
    line = {
        "step": step,
        "epoch": step / 10,
        "loss": 8 / step,
        "grad_norm": 1.0,
        "learning_rate_language_model": 1e-4,
        "learning_rate_connector": 2e-4,
        "learning_rate_vision_tower": 0.0,
        "num_tokens": 4000,
        "num_supervised_tokens": 400,
        "num_tiles": 12,
        "num_samples": 100,
        "num_skipped": 0,
        "pack_fill": 0.97,
        "samples_per_s": 50.0,
        "tokens_per_s": 2000.0,
        "supervised_tokens_per_s": 200.0,
        "tiles_per_s": 6.0,
        "mfu": 0.3,
        "peak_memory_gb": 2.5,
    }
    return {**line, **changes}


def answer_line(number: int, **changes: Any) -> dict[str, Any]:
    line = {
        "where": f"eval.jsonl:{number}",
        "source": "eval",
        "group": "shape",
        "question": "Which shape?",
        "prediction": "circle",
        "references": ["circle"],
        "correct": 1.0,
        "images": [],
    }
    return {**line, **changes}


@pytest.fixture(scope="session")
def line_of() -> Callable[..., dict[str, float]]:
    """`train_line`, for tests to call."""
    return train_line


@pytest.fixture(scope="session")
def answer_of() -> Callable[..., dict[str, Any]]:
    """`answer_line`, for tests to call."""
    return answer_line
