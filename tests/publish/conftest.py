"""Two finished runs: all weights, and an adapter."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm import api
from smolvlm.build.processor import ModelType


@pytest.fixture(scope="session")
def finished_run(
    checkpoint_folders: dict[ModelType, Path],
    photos: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Any:
    """Trains two steps and returns the run's folder; `changes` are sections' settings."""

    def run(name: str, **changes: Any) -> Path:
        folder = tmp_path_factory.mktemp("published")
        pictures = [str(photos[name]) for name in ("coffee", "horse")]
        rows = [{"question": "What?", "answer": "it", "image": path} for path in pictures]
        settings: dict[str, Any] = {
            "model": {"path": str(checkpoint_folders["smolvlm"])},
            "data": {"longest_edge_px": 64, "max_tokens_per_pack": 128},
            "train": {
                "output_dir": str(folder / name),
                "language_model_lr": 1e-3,
                "packs_per_step": 1,
                "max_steps": 2,
                "logging_steps": 1,
                "use_cpu": True,
            },
            "eval": {"max_new_tokens": 2},
            **changes,
        }
        api.train(api.load_config(settings, rows=rows, eval_rows=rows[:1]))
        return folder / name

    return run


@pytest.fixture(scope="session")
def full_run(finished_run: Any) -> Path:
    return finished_run("full")


@pytest.fixture(scope="session")
def adapter_run(finished_run: Any) -> Path:
    return finished_run("adapter", adapters={"language": {"type": "lora", "r": 4}})
