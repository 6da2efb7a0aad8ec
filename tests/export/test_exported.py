"""What is read of a checkpoint before any work: its run's settings, from where they belong."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm.export.exported import read_exported


@pytest.fixture
def run_folder(checkpoint_folders: Any, tmp_path: Path) -> Path:
    """A model as a run leaves it, with one checkpoint and a folder that is none of its own."""
    folder = shutil.copytree(checkpoint_folders["smolvlm"], tmp_path / "run")
    for name in ("checkpoint-3", "other"):
        shutil.copytree(checkpoint_folders["smolvlm"], folder / name)
    settings = {
        "model": {"path": "embedded", "new_tokens": ["<zone>"]},
        "data": {"mixture": [], "average_frames": 4},
        "train": {"output_dir": str(folder)},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.mark.parametrize(
    ("name", "frames", "tokens"),
    [(".", 4, ("<zone>",)), ("checkpoint-3", 4, ("<zone>",)), ("other", 1, ())],
)
def test_a_runs_settings_are_those_of_its_folder_and_its_checkpoints(
    run_folder: Path, name: str, frames: int, tokens: tuple[str, ...]
) -> None:
    exported = read_exported(run_folder / name)
    assert (exported.average_frames, exported.new_tokens) == (frames, tokens)
    assert exported.is_adapter is False
    assert exported.prompt.media.pictures.longest_edge_px == 128
