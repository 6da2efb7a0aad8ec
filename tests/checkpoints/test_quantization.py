"""Exactly the layers asked for are quantised, and each computes as a linear layer with the weights
it stands for."""

import copy
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_dequant
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import PeftModel
from torch import nn
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint, load_checkpoint
from smolvlm.checkpoints.peft_layers import merge_adapter
from smolvlm.checkpoints.quantization import check_quantized_layers, num_values, quantized_layers
from smolvlm.checkpoints.quantized_layers import (
    ExactLinear4bit,
    ExactLinear8bit,
    held_bytes,
    is_quantized,
    restore_linear_layers,
)
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.quantization import Quantization, quantization_of
from smolvlm.errors import ConfigError
from smolvlm.model.towers import TOWERS, Tower, is_adapter
from tests.checkpoints.test_adapters import inputs_of, learn, logits
from tests.processors import loaded_once

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

KINDS: dict[str, dict[str, Any]] = {
    "8 bit": {"bits": 8},
    "nf4": {"bits": 4},
    "fp4": {"bits": 4, "quant_type": "fp4", "double_quant": False},
}
NUM_LAYERS: dict[str, tuple[Tower, int]] = {
    "language": ("language_model", 14),
    "vision": ("vision_tower", 12),
    "connector": ("connector", 1),
}


def settings(kind: str, towers: Sequence[Any] = ("language",)) -> Quantization:
    return quantization_of({**KINDS[kind], "towers": list(towers)})


@pytest.fixture(scope="module", autouse=True)
def processors_loaded_once() -> Iterator[None]:
    """Every model loads its processor with it, which takes longer than the model."""
    with loaded_once():
        yield


@pytest.fixture(scope="module")
def held(checkpoint_folders: dict[Any, Path]) -> dict[str, Checkpoint]:
    """A tiny SmolVLM, its language model quantised, by kind; not to be changed."""
    return {
        kind: load_checkpoint(str(checkpoint_folders["smolvlm"]), quantization=settings(kind))
        for kind in KINDS
    }


def plain_twin(model: Any, folder: Path) -> Any:
    """Return a model in full precision whose weights are those that a quantised model's stand
    for."""
    twin = load_checkpoint(str(folder)).model
    for name, layer in model.named_modules():
        if is_quantized(layer):
            twin.get_submodule(name).weight.data.copy_(layer.full_weight(torch.float32))
    return twin


@pytest.mark.parametrize("kind", ["8 bit", "nf4"])
@pytest.mark.parametrize("towers", [["language"], ["vision"], ["connector", "language"]])
def test_exactly_the_towers_asked_for_are_quantised(
    folder: Path, kind: str, towers: list[str]
) -> None:
    config = settings(kind, towers)
    model = load_checkpoint(str(folder), quantization=config).model
    layers = quantized_layers(model, config)
    assert layers is not None
    assert layers.num_layers == dict(NUM_LAYERS[part] for part in towers)
    plain = [
        name
        for name, own in model.named_modules()
        if isinstance(own, nn.Linear) and not is_quantized(own)
    ]
    assert len(plain) == 14 + 12 + 1 + 1 - sum(layers.num_layers.values())
    assert "lm_head" in plain
    assert type(model.get_input_embeddings()) is nn.Embedding
    assert {own.dtype for own in model.parameters() if own.is_floating_point()} == {torch.float32}


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_ordinary_layers_take_the_place_of_quantised_ones(
    held: dict[str, Checkpoint], folder: Path, kind: str
) -> None:
    quantised, plain = held[kind].model, copy.deepcopy(held[kind].model)
    restore_linear_layers(plain, torch.float32)
    assert not any(is_quantized(layer) for layer in plain.modules())
    stock = {type(layer) for layer in load_checkpoint(str(folder)).model.modules()}
    assert {type(layer) for layer in plain.modules()} == stock
    for name, layer in quantised.named_modules():
        if not is_quantized(layer):
            continue
        restored = plain.get_submodule(name)
        weight = layer.weight
        read = (
            int8_vectorwise_dequant(weight.data, weight.SCB)
            if kind == "8 bit"
            else dequantize_4bit(weight.data, weight.quant_state)
        )
        # bitsandbytes writes 1 / 127 in eight digits.
        torch.testing.assert_close(restored.weight.data, read, rtol=2e-7, atol=0)
        inputs = torch.randn(3, layer.in_features)
        assert torch.equal(restored(inputs), layer(inputs))


def test_it_says_what_is_held_and_what_that_saves(held: dict[str, Checkpoint]) -> None:
    layers = quantized_layers(held["nf4"].model, settings("nf4"))
    assert layers is not None
    assert str(layers).startswith(
        "language_model  14 layers in 4 bits (nf4, its scales quantised too)\n"
    )
    own = [module for module in held["nf4"].model.modules() if is_quantized(module)]
    values = sum(module.in_features * module.out_features for module in own)
    assert sum(num_values(module.weight) for module in own) == values
    assert layers.full_bytes == 4 * values
    assert layers.held_bytes == sum(held_bytes(module) for module in own) > values / 2
    eight = [module for module in held["8 bit"].model.modules() if is_quantized(module)]
    assert sum(map(held_bytes, eight)) == values + 4 * sum(module.out_features for module in eight)


def test_other_layers_than_those_asked_for_are_an_error(held: dict[str, Checkpoint]) -> None:
    with pytest.raises(ConfigError, match="14 layers, asked were 26: 12 left out, the first model"):
        check_quantized_layers(held["nf4"].model, settings("nf4", ["language", "vision"]))
    with pytest.raises(
        ConfigError, match=r"asked were 1: 1 left out, the first model\.connector.*; 14 too many"
    ):
        check_quantized_layers(held["8 bit"].model, settings("8 bit", ["connector"]))


def test_without_bitsandbytes_it_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(str(folder), quantization=settings("nf4"))
    assert str(caught.value) == (
        'quantization: bitsandbytes is not installed\n  fix: pip install "smolvlm[quantization]"'
    )


def test_a_checkpoint_of_quantised_weights_is_refused(
    held: dict[str, Checkpoint], folder: Path, tmp_path: Path
) -> None:
    told = BitsAndBytesConfig(load_in_4bit=True)
    stock = AutoModelForImageTextToText.from_pretrained(folder, quantization_config=told)
    stock.save_pretrained(tmp_path)
    held["nf4"].processor.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="its weights are quantised already"):
        load_checkpoint(str(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_its_weights_stand_for(
    held: dict[str, Checkpoint], folder: Path, photos: dict[str, Path], kind: str
) -> None:
    model, inputs = held[kind].model, inputs_of(held[kind].processor, photos)
    trained, evaluated = logits(model.train(), inputs), logits(model.eval(), inputs)
    assert torch.equal(trained, evaluated)
    assert torch.equal(evaluated, logits(plain_twin(model, folder).eval(), inputs))


@pytest.mark.parametrize(
    ("kind", "share"), [("8 bit", 0.5 / 127 + 2e-3), ("nf4", 0.16), ("fp4", 0.18)]
)
def test_weights_are_near_the_full_ones(
    held: dict[str, Checkpoint], folder: Path, kind: str, share: float
) -> None:
    """Within half the widest gap between two values, of the largest weight that shares a scale."""
    full = load_checkpoint(str(folder)).model
    for name, layer in held[kind].model.named_modules():
        if is_quantized(layer):
            weight = full.get_submodule(name).weight.data
            error = (layer.full_weight(torch.float32) - weight).abs()
            assert 0 < error.max() <= share * weight.abs().max()


@pytest.mark.parametrize("kind", ["8 bit", "nf4"])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_tokens_result_depends_on_no_other_token(
    held: dict[str, Checkpoint], kind: str, autocast: bool
) -> None:
    layer = held[kind].model.get_submodule("model.text_model.layers.0.mlp.gate_proj").eval()
    tokens = torch.randn(40, layer.in_features, generator=torch.Generator().manual_seed(0))
    tokens[7, 3] = 500.0  # such a value makes bitsandbytes compute its whole column in another way
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        together = layer(tokens[None])[0]
        alone = torch.cat([layer(tokens[number : number + 1]) for number in range(len(tokens))])
    assert together.dtype == (torch.bfloat16 if autocast else torch.float32)
    error = (together - alone).abs().amax(1) / alone.abs().amax(1)
    assert error.max() <= (2**-7 if autocast else 1e-6), "rounding apart, of a sum in another order"


def test_bitsandbytes_own_8_bits_do_depend_on_the_others_while_evaluating(
    held: dict[str, Checkpoint],
) -> None:
    """Why its forward is not used: the seam has moved once this fails."""
    layer: Any = copy.deepcopy(
        held["8 bit"].model.get_submodule("model.text_model.layers.0.mlp.gate_proj")
    ).eval()
    layer.__class__ = Linear8bitLt
    tokens = torch.randn(8, layer.in_features, generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[7, 3] = 500.0
    with torch.no_grad():
        first, second = layer(tokens[None])[0], layer(other[None])[0]
    assert (first[:7] - second[:7]).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("kind", "own", "stock"),
    [("8 bit", ExactLinear8bit, Linear8bitLt), ("nf4", ExactLinear4bit, Linear4bit)],
)
def test_layers_are_bitsandbytes_own(
    held: dict[str, Checkpoint], kind: str, own: type, stock: type
) -> None:
    """The seam: our classes add a forward, and in training mode on a CPU both compute the same to
    the bit."""
    layer: Any = held[kind].model.get_submodule("model.text_model.layers.1.self_attn.v_proj")
    assert type(layer) is own
    theirs = copy.deepcopy(layer).train()
    theirs.__class__ = stock
    results = []
    for one in (layer, theirs):
        tokens = torch.randn(
            1, 9, layer.in_features, generator=torch.Generator().manual_seed(0)
        ).requires_grad_()
        output = one(tokens)
        output.square().sum().backward()
        results.append((output.detach(), tokens.grad))
    assert all(torch.equal(ours, other) for ours, other in zip(*results, strict=True))


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("kind", ["8 bit", "nf4"])
def test_gradients_are_those_of_the_plain_layer(
    held: dict[str, Checkpoint], kind: str, autocast: bool
) -> None:
    layer: Any = copy.deepcopy(
        held[kind].model.get_submodule("model.text_model.layers.0.self_attn.q_proj")
    )
    layer.bias = nn.Parameter(torch.randn(layer.out_features))
    plain = nn.Linear(layer.in_features, layer.out_features)
    plain.load_state_dict({"weight": layer.full_weight(torch.float32), "bias": layer.bias.detach()})
    found = []
    for own in (layer, plain):
        tokens = torch.randn(
            2, 5, layer.in_features, generator=torch.Generator().manual_seed(1)
        ).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            output = own(tokens)
        output.float().square().sum().backward()
        found.append((output.detach(), tokens.grad, own.bias.grad))
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        error = (ours - theirs).float().norm() / theirs.float().norm()
        assert error <= (2**-8 if autocast else 1e-6), "one rounding to bfloat16, or to float32"


@pytest.mark.parametrize("kind", ["8 bit", "nf4"])
@pytest.mark.parametrize("of_type", ["lora", "rslora", "dora"])
def test_adapters_learn_as_over_plain_weights_and_peft_loads_them(
    held: dict[str, Checkpoint],
    folder: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    kind: str,
    of_type: Any,
) -> None:
    inputs = inputs_of(held[kind].processor, photos)
    model = copy.deepcopy(held[kind].model)
    before = logits(model.eval(), inputs)
    adapters: dict[Tower, AdapterConfig] = {
        tower: AdapterConfig(type=of_type, r=3, dropout=0.0 if of_type == "dora" else 0.2)
        for tower in TOWERS
    }
    found = []
    for own in (model, plain_twin(model, folder)):
        attached = attach_adapters(own, adapters, base=str(folder), seed=3)
        freeze(own, LearningRates(adapter=dict.fromkeys(TOWERS, 1.0)))
        torch.testing.assert_close(logits(own.eval(), inputs), before, rtol=0, atol=1e-6)
        torch.manual_seed(0)
        learn(own.train(), inputs)
        found.append(
            {name: value.detach() for name, value in own.named_parameters() if is_adapter(name)}
        )
    assert {value.dtype for value in found[0].values()} == {torch.float32}
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5)
    trained = logits(model, inputs)
    assert (trained - before).abs().max() > 0.01, "nothing was learned"
    attached.save(model, tmp_path)
    theirs: Any = PeftModel.from_pretrained(copy.deepcopy(held[kind].model), str(tmp_path))
    torch.testing.assert_close(logits(theirs.eval(), inputs), trained, rtol=0, atol=0)
    again = load_checkpoint(str(tmp_path), quantization=settings(kind)).model.eval()
    assert torch.equal(logits(again, inputs), trained)


@pytest.mark.parametrize("kind", ["8 bit", "nf4"])
@pytest.mark.parametrize("of_type", ["lora", "dora"])
def test_merged_is_the_full_base_with_the_adapter(
    held: dict[str, Checkpoint],
    folder: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    kind: str,
    of_type: Any,
) -> None:
    model, inputs = copy.deepcopy(held[kind].model), inputs_of(held[kind].processor, photos)
    attached = attach_adapters(
        model, {"language_model": AdapterConfig(type=of_type)}, base=str(folder), seed=0
    )
    freeze(model, LearningRates(adapter={"language_model": 1.0}))
    learn(model, inputs)
    attached.save(model, tmp_path)
    full = load_checkpoint(str(tmp_path)).model.eval()
    unmerged = logits(full, inputs)
    merge_adapter(full)
    torch.testing.assert_close(logits(full, inputs), unmerged, rtol=0, atol=1e-5)
    assert not [name for name, own in full.named_modules() if is_quantized(own)]
    distance = (logits(model, inputs) - unmerged).abs().max()
    assert distance > 1e-5, "quantising moved the base, and merging does not hide it"


def test_bfloat16_weights_beside_quantised_ones(folder: Path, photos: dict[str, Path]) -> None:
    half = load_checkpoint(str(folder), dtype=torch.bfloat16, quantization=settings("nf4"))
    assert half.model.dtype == torch.bfloat16
    attach_adapters(half.model, {"language_model": AdapterConfig()}, base="", seed=0)
    freeze(half.model, LearningRates(adapter={"language_model": 1.0}))
    inputs = inputs_of(half.processor, photos)
    before = logits(half.model.eval(), inputs)
    learn(half.model.train(), inputs)
    assert (logits(half.model, inputs) - before).abs().max() > 0.01
