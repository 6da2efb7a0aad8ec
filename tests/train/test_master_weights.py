"""bfloat16 weights under float32 masters compute, learn and are saved as weights under autocast."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from smolvlm.train import master_weights
from smolvlm.train.master_weights import MasterWeights, rounded_parameters
from tests.train.conftest import FinishedRun, TrainRun

BF16 = {"train.bf16": True, "train.vision_tower_lr": 2e-4, "train.num_train_epochs": 1}
MASTERS = {"train.master_weights": True}
LORA = {
    "train.language_model_lr": 0,
    "adapters.language_model": {"type": "lora", "r": 4, "learning_rate": 1e-3},
}


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: value
        for path in sorted(folder.glob("*model*.safetensors"))
        for name, value in load_file(path).items()
    }


def assert_same_run(one: FinishedRun, other: FinishedRun) -> None:
    assert len(one.losses) > 2
    assert one.losses == other.losses
    norms = [[row["grad_norm"] for row in run.steps] for run in (one, other)]
    assert norms[0] == norms[1]
    ours, theirs = weights_of(one.folder), weights_of(other.folder)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype == torch.float32
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="all"),
        pytest.param({"train.vision_tower_lr": 0}, id="frozen tower"),
        pytest.param({"train.max_grad_norm": 0.0, "train.optim": "sgd"}, id="unclipped"),
        pytest.param({"train.activation_checkpointing": True}, id="checkpointing"),
        pytest.param(LORA | {"train.vision_tower_lr": 0}, id="lora"),
    ],
)
def test_a_run_equals_its_twin_under_autocast_to_the_bit(
    train_run: TrainRun, tmp_path: Path, changes: dict[str, Any]
) -> None:
    plain = train_run(tmp_path / "plain", BF16 | changes)
    run = train_run(tmp_path / "masters", BF16 | changes | MASTERS)
    assert_same_run(run, plain)
    assert all(p.dtype == torch.float32 for p in run.trained.checkpoint.model.parameters())
