"""The converted tower against the source network's own maths, written out with its own weights."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import SmolVLMVisionConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from smolvlm.build.sources import vision_tower_onnx
from smolvlm.build.tower_tensors import IMAGENET_MEAN, IMAGENET_STD, resize_positions
from smolvlm.build.vit_s14_tower import OnnxWeights, convert_tower, read_onnx, vision_dimensions


@pytest.fixture(scope="module")
def weights() -> OnnxWeights:
    return read_onnx(vision_tower_onnx())


def source_forward(weights: OnnxWeights, pixels: Tensor, *, num_layers: int) -> Tensor:
    """The network as its file describes it, less the class token; pixels in 0..1."""
    source = weights.tensors

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ source[f"{name}.weight"].T + source[f"{name}.bias"]

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + 1e-6)
        return scaled * source[f"{name}.weight"] + source[f"{name}.bias"]

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (6, 64)).transpose(1, 2)

    normalised = (pixels - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[
        :, None, None
    ]
    projection = "embeddings.patch_embeddings.projection"
    patches = functional.conv2d(
        normalised, source[f"{projection}.weight"], source[f"{projection}.bias"], stride=14
    )
    x = patches.flatten(2).transpose(1, 2)
    x = x + resize_positions(weights.positions, patches_per_side=pixels.shape[-1] // 14)
    for index in range(num_layers):
        layer = f"encoder.layer.{index}"
        y = norm(x, f"{layer}.norm1")
        query, key, value = (
            heads(linear(y, f"{layer}.attention.attention.{name}"))
            for name in ("query", "key", "value")
        )
        mixed = torch.softmax(query @ key.transpose(-1, -2) / 8, dim=-1) @ value
        y = linear(mixed.transpose(1, 2).flatten(2), f"{layer}.attention.output.dense")
        x = x + source[f"{layer}.layer_scale1.lambda1"] * y
        y = linear(norm(x, f"{layer}.norm2"), f"{layer}.mlp.fc1")
        y = linear(y * 0.5 * (1 + torch.erf(y / math.sqrt(2))), f"{layer}.mlp.fc2")
        x = x + source[f"{layer}.layer_scale2.lambda1"] * y
    return norm(x, "layernorm")


@pytest.mark.parametrize(("tile_side_px", "num_layers"), [(56, 12), (112, 3)])
def test_the_stock_class_computes_what_the_source_network_does(
    weights: OnnxWeights, tile_side_px: int, num_layers: int
) -> None:
    dimensions = vision_dimensions(tile_side_px=tile_side_px, num_layers=num_layers)
    config = SmolVLMVisionConfig(
        hidden_size=dimensions.hidden_size,
        intermediate_size=dimensions.intermediate_size,
        num_hidden_layers=dimensions.num_layers,
        num_attention_heads=dimensions.num_heads,
        image_size=dimensions.tile_side_px,
        patch_size=dimensions.patch_size_px,
        hidden_act=dimensions.activation,
    )
    tower = SmolVLMVisionTransformer(config).eval()
    tower.load_state_dict(convert_tower(weights, tile_side_px=tile_side_px, num_layers=num_layers))
    pixels = torch.rand(
        2, 3, tile_side_px, tile_side_px, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        converted = tower((pixels - 0.5) / 0.5).last_hidden_state
    expected = source_forward(weights, pixels, num_layers=num_layers)
    torch.testing.assert_close(converted, expected, atol=1e-4, rtol=1e-4)


def test_positions_keep_their_values_at_their_own_size_and_their_layout_at_another(
    weights: OnnxWeights,
) -> None:
    assert weights.positions.shape == (37 * 37, 384)
    torch.testing.assert_close(
        resize_positions(weights.positions, patches_per_side=37), weights.positions
    )
    rows = torch.arange(4.0).repeat_interleave(4)[:, None]
    resized = resize_positions(rows, patches_per_side=2).reshape(2, 2)
    assert torch.equal(resized[:, 0], resized[:, 1])
    assert (resized[0] < resized[1]).all()


@pytest.mark.parametrize(
    ("tile_side_px", "num_layers", "message"),
    [(100, 3, "not a multiple of 14"), (112, 0, "is not 1 to 12"), (112, 13, "is not 1 to 12")],
)
def test_shapes_that_the_tower_does_not_have_are_refused(
    tile_side_px: int, num_layers: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        vision_dimensions(tile_side_px=tile_side_px, num_layers=num_layers)
