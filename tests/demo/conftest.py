"""A run that changed a tiny model much, so that it and its base answer differently."""

from pathlib import Path

import pytest

from smolvlm import api
from smolvlm.build.processor import ModelType


@pytest.fixture(scope="session")
def run(
    checkpoint_folders: dict[ModelType, Path],
    photos: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The output folder of a run of all weights; not to be written to."""
    out = tmp_path_factory.mktemp("demo") / "out"
    settings = {
        "model": {"path": str(checkpoint_folders["smolvlm"])},
        "data": {"longest_edge_px": 64, "max_tokens_per_pack": 256, "max_image_pixels": 100_000},
        "train": {
            "output_dir": str(out),
            "language_model_lr": 0.05,
            "packs_per_step": 1,
            "max_steps": 4,
            "use_cpu": True,
            "report_to": "none",
        },
    }
    rows = [{"question": "What is it?", "answer": "cup", "image": str(photos["coffee"])}]
    api.train(api.load_config(settings, rows=rows))
    return out
