"""A frozen tower with weights laid out once gives the stock tower's features, and is given up as
soon as a weight, the type or a layer changes."""

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import SmolVLMConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from smolvlm.model import packed_tower as room
from smolvlm.model.cpu_choices import STOCK_CHOICES, CpuChoices, using_choices
from smolvlm.model.packed_tower import can_pack, packed_tower
from smolvlm.model.vision import run_tower

CHOSEN = CpuChoices(bf16_products=True)
pytestmark = pytest.mark.skipif(
    not room._has_operations(torch.float32), reason="this build of torch has no oneDNN"
)
needs_bf16 = pytest.mark.skipif(
    not room._has_operations(torch.bfloat16), reason="oneDNN has no bfloat16 on this CPU"
)


def make_tower(activation: str = "gelu_pytorch_tanh", heads: int = 2) -> Any:
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": heads,
        "image_size": 64,
        "patch_size": 8,
        "hidden_act": activation,
    }
    config = cast("Any", SmolVLMConfig(vision_config=vision)).vision_config
    tower = SmolVLMVisionTransformer(config).requires_grad_(requires_grad=False)
    with torch.no_grad():  # as trained ones are: norms and biases that do something
        for name, value in tower.named_parameters():
            if "norm" in name or "bias" in name:
                value += 0.3 * torch.randn_like(value)
    return tower


@pytest.fixture
def pixels() -> Tensor:
    return torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def features(tower: Any, pixels: Tensor) -> Tensor:
    """By the layers as they are laid out now; there have to be some."""
    with using_choices(CHOSEN), torch.no_grad():
        packed = packed_tower(tower, next(tower.parameters()).dtype)
        assert packed is not None
        return run_tower(tower, pixels, packed=packed)


@pytest.mark.parametrize("activation", ["gelu_pytorch_tanh", "gelu"])
@pytest.mark.parametrize("heads", [1, 2, 4])
def test_float32_features_are_the_stock_towers(activation: str, heads: int, pixels: Tensor) -> None:
    tower = make_tower(activation, heads)
    expected = tower(pixels).last_hidden_state
    found = features(tower, pixels)
    assert found.dtype == torch.float32
    assert (found - expected).norm() / expected.norm() < 1e-6


@needs_bf16
@pytest.mark.parametrize("is_cast", [True, False])
def test_bfloat16_features_are_no_further_from_float32_than_the_stock_towers(
    is_cast: bool, pixels: Tensor
) -> None:
    tower = make_tower()
    exact = tower(pixels).last_hidden_state
    if not is_cast:
        tower.bfloat16()
        pixels = pixels.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=is_cast):
        stock, found = tower(pixels).last_hidden_state, features(tower, pixels)
    assert found.dtype == stock.dtype
    errors = [((part.float() - exact).norm() / exact.norm()).item() for part in (found, stock)]
    assert errors[0] < 1.1 * errors[1]


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_bf16)])
def test_a_tile_alone_is_a_tile_among_others(dtype: torch.dtype, pixels: Tensor) -> None:
    tower = make_tower()
    with torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        together = features(tower, pixels)
        for number, tile in enumerate(pixels):
            assert torch.equal(features(tower, tile[None])[0], together[number])


def written(tower: Any) -> None:
    tower.encoder.layers[1].mlp.fc1.weight.mul_(2)


def written_past_autograd(tower: Any) -> None:
    tower.encoder.layers[2].self_attn.v_proj.weight.data.mul_(2)


def replaced(tower: Any) -> None:
    tower.encoder.layers[0].mlp.fc2 = nn.Linear(64, 32).requires_grad_(requires_grad=False)


def loaded(tower: Any) -> None:
    tower.load_state_dict({name: value * 1.5 for name, value in tower.state_dict().items()})


@pytest.mark.parametrize("change", [written, written_past_autograd, replaced, loaded])
def test_a_changed_weight_is_laid_out_anew(change: Callable[[Any], None], pixels: Tensor) -> None:
    tower = make_tower()
    before = features(tower, pixels)
    with torch.no_grad():
        change(tower)
    found, expected = features(tower, pixels), tower(pixels).last_hidden_state
    assert (found - expected).norm() / expected.norm() < 1e-6
    assert not torch.allclose(found, before, rtol=1e-3)


def test_layers_are_laid_out_once(pixels: Tensor) -> None:
    tower = make_tower()
    with using_choices(CHOSEN):
        first = packed_tower(tower, torch.float32)
        run_tower(tower, pixels, packed=first)
        assert packed_tower(tower, torch.float32) is first
    with using_choices(STOCK_CHOICES):
        assert packed_tower(tower, torch.float32) is None


def trained(tower: Any) -> None:
    tower.encoder.layers[0].layer_norm1.weight.requires_grad_()


def adapted(tower: Any) -> None:
    class Adapter(nn.Linear):
        pass

    tower.encoder.layers[0].mlp.fc1 = Adapter(32, 64)


def hooked(tower: Any) -> None:
    tower.encoder.layers[2].mlp.fc2.register_forward_hook(lambda *_: None)


def patched(tower: Any) -> None:
    tower.encoder.layers[2].forward = lambda *_: None


def with_another_activation(tower: Any) -> None:
    tower.config.hidden_act = "relu"


@pytest.mark.parametrize("change", [trained, adapted, hooked, patched, with_another_activation])
def test_what_is_no_plain_frozen_tower_is_left_to_transformers(
    change: Callable[[Any], None],
) -> None:
    tower = make_tower()
    assert can_pack(tower, torch.float32)
    assert not can_pack(tower, torch.float16)
    change(tower)
    assert not can_pack(tower, torch.float32)
