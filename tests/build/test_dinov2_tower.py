"""DINOv2's layout in a folder: its shape, its pixels, and what of it has no place in the stock
class."""

from pathlib import Path
from typing import Any

import pytest
from transformers import Dinov2Config, Dinov2Model

from smolvlm.build.dinov2_tower import read_dinov2
from smolvlm.build.tower_tensors import IMAGENET_MEAN, IMAGENET_STD
from smolvlm.errors import ConfigError

SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}


def test_shape_and_pixels(dinov2: Path) -> None:
    part = read_dinov2(dinov2)
    dimensions = part.dimensions
    assert (dimensions.tile_side_px, dimensions.patches_per_side, dimensions.intermediate_size) == (
        64,
        4,
        64,
    )
    assert dimensions.activation == "gelu"
    assert (part.pixel_mean, part.pixel_std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert any("class token is dropped" in note for note in part.notes)


def test_biases_that_a_tower_lacks_are_zero(tmp_path: Path) -> None:
    Dinov2Model(Dinov2Config(**SMALL, qkv_bias=False)).save_pretrained(tmp_path)
    read = read_dinov2(tmp_path).read
    assert read is not None
    state = read(1)
    assert not state["encoder.layers.0.self_attn.k_proj.bias"].any()
    assert state["embeddings.position_embedding.weight"].shape == (4, 16)


def test_a_gated_mlp_is_refused(tmp_path: Path) -> None:
    Dinov2Model(Dinov2Config(**SMALL, use_swiglu_ffn=True)).save_pretrained(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"has a gated MLP, SmolVLM's vision class has none\n  fix: take the small",
    ):
        read_dinov2(tmp_path)
