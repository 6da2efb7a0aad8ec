"""A checkpoint's training state from elsewhere: read without running what it may hold."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from smolvlm.config.load import load_run_config
from smolvlm.errors import ConfigError
from smolvlm.train.checkpoint_folder import mark_whole, read_marker
from smolvlm.train.train import train

CHECKPOINT = "checkpoint-6"


class Evil:
    """A pickle of it makes a folder where it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.mkdir, (self.folder,)  # type: ignore[return-value]


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_payload_in_a_resumed_folder_does_not_run(
    forked_runs: Any, file: str, tmp_path: Path
) -> None:
    run = forked_runs.stopped["cached"]
    output_dir, proof = tmp_path / "run", tmp_path / "it_ran"
    shutil.copytree(run.resumed, output_dir)
    for folder in output_dir.glob("checkpoint-*"):
        if folder.name != CHECKPOINT:
            shutil.rmtree(folder)
    checkpoint = output_dir / CHECKPOINT
    torch.save({"state": {}, "evil": Evil(proof)}, checkpoint / file)
    content = read_marker(checkpoint)
    assert content is not None
    mark_whole(checkpoint, {key: content[key] for key in content.keys() - {"files", "sha256"}})
    config = load_run_config(run.resumed.parent / "run.yaml", [f"train.output_dir={output_dir}"])
    with pytest.raises(ConfigError, match="training state holds something else than numbers"):
        train(config)
    assert not proof.exists()
    torch.load(checkpoint / file, weights_only=False)
    assert proof.exists(), "the pickle was a dangerous one"
