"""With an extended context packed = alone through the stock class, which reads the scaling from
what was saved.

The checkpoint's own context is 32 tokens here, so that nearly every conversation is longer.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from smolvlm.checkpoints.context import context_tokens
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.config.rope import RopeScaling
from tests.parity.test_packed_equals_alone import MIXED, texts

OWN_CONTEXT = 32
SCALINGS = [
    pytest.param(RopeScaling(type="linear", factor=16.0), marks=pytest.mark.grid),
    RopeScaling(type="dynamic", factor=16.0),
    pytest.param(RopeScaling(type="yarn", factor=16.0), marks=pytest.mark.grid),
    RopeScaling(type="yarn", factor=16.0, attention_factor=1.5, beta_fast=8.0, beta_slow=2.0),
]


@pytest.fixture(scope="module")
def short_folder(checkpoint_folders: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint made for conversations of 32 tokens."""
    folder = tmp_path_factory.mktemp("short") / "model"
    shutil.copytree(checkpoint_folders["smolvlm"], folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = OWN_CONTEXT
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def plain_loss(short_folder: Path, make_bench: Callable[..., Any]) -> float:
    plain = load_checkpoint(str(short_folder)).model.eval()
    return make_bench(plain, plain, short_folder).packed(texts()).loss


@pytest.fixture
def scaled(
    short_folder: Path, make_bench: Callable[..., Any], tmp_path: Path
) -> Callable[[RopeScaling], Any]:
    """Makes a bench of our model as a run scales it, and the stock one as it reads what was
    saved."""

    def make(scaling: RopeScaling) -> Any:
        ours = load_checkpoint(str(short_folder), rope_scaling=scaling).model
        ours.save_pretrained(tmp_path)
        stock = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32)
        return make_bench(ours.eval(), stock.eval(), short_folder)

    return make


@pytest.mark.parametrize("scaling", SCALINGS, ids=str)
def test_packed_equals_alone_beyond_the_checkpoints_context(
    scaled: Any, plain_loss: float, scaling: RopeScaling
) -> None:
    bench = scaled(scaling)
    longest = max(
        len(bench.stock_inputs(row)["input_ids"][0]) for sample in MIXED for row in sample
    )
    assert 9 * OWN_CONTEXT < longest <= context_tokens(bench.ours.config)
    bench.check(MIXED)
    assert abs(bench.packed(texts()).loss - plain_loss) > 1e-4, (
        "the scaling changes what the model says"
    )
