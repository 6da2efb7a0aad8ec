"""Tiny checkpoints in memory: fixtures that the tests of several rooms take in."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.load import Checkpoint, load_checkpoint


@pytest.fixture(params=["smolvlm", "idefics3"])
def model_type(request: pytest.FixtureRequest) -> ModelType:
    return request.param


@pytest.fixture
def folder(checkpoint_folders: dict[ModelType, Path]) -> Path:
    """A tiny SmolVLM checkpoint's folder; not to be written to."""
    return checkpoint_folders["smolvlm"]


@pytest.fixture(scope="session")
def loaded(checkpoint_folders: dict[ModelType, Path]) -> dict[ModelType, Checkpoint]:
    """The tiny checkpoints in memory; not to be changed."""
    return {
        model_type: load_checkpoint(str(path)) for model_type, path in checkpoint_folders.items()
    }


@pytest.fixture
def checkpoint(loaded: dict[ModelType, Checkpoint]) -> Checkpoint:
    """A tiny SmolVLM as it was loaded: a test may change its model."""
    return replace(loaded["smolvlm"], model=copy.deepcopy(loaded["smolvlm"].model))
