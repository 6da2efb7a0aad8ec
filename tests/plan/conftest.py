"""A tiny model's configuration and a run's settings; a device with round rates."""

from pathlib import Path
from typing import Any

import pytest
import torch

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.load import read_model_config
from smolvlm.config.load import config_from
from smolvlm.config.schema import RunConfig
from smolvlm.plan.devices import Device, Rates
from smolvlm.plan.fake_run import PlannedModel
from smolvlm.protocols import VisionLanguageConfig

RATES = Rates(
    product_flops=100.0,
    attention_flops=50.0,
    attention_backward_flops=25.0,
    gelu_bytes=4.0,
    special_bytes=10.0,
    unpack_bytes=5.0,
    plain_bytes=20.0,
)


@pytest.fixture
def tiny_config(checkpoint_folders: dict[ModelType, Path]) -> VisionLanguageConfig:
    return read_model_config(str(checkpoint_folders["smolvlm"]))


@pytest.fixture
def planned_model(tiny_config: VisionLanguageConfig) -> PlannedModel:
    return PlannedModel(config=tiny_config)


@pytest.fixture
def run_config(checkpoint_folders: dict[ModelType, Path], tmp_path: Path) -> Any:
    """Makes a run's settings with some overrides."""

    def make(*overrides: str) -> RunConfig:
        content = {
            "model": {"path": str(checkpoint_folders["smolvlm"])},
            "data": {"mixture": []},
            "train": {"output_dir": str(tmp_path / "run"), "use_cpu": True},
        }
        return config_from(content, overrides, where="settings")

    return make


@pytest.fixture
def cpu() -> Device:
    """Computes 100 FLOPs and moves 20 bytes a second."""
    return Device(
        name="a CPU",
        rates={torch.float32: RATES},
        optimizer_bytes=40.0,
        fresh_bytes=2.0,
        operation_s=0.5,
        is_overlapped=False,
        memory_bytes=None,
        watts=None,
        threads=2,
    )
