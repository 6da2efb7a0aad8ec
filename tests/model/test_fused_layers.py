"""Language layers in fewer operations compute what the stock layers compute, and what is missing is
said."""

import copy
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.llama import modeling_llama

from smolvlm.checkpoints.load import Checkpoint
from smolvlm.errors import ConfigError
from smolvlm.model import fused_layers
from smolvlm.model.cpu_choices import STOCK_CHOICES, using_choices
from smolvlm.model.fused_layers import FusedKernels, fuse_layers, liger_kernels
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES
from smolvlm.train.master_weights import MasterWeights

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
STOCK_ROTATE = modeling_llama.apply_rotary_pos_emb


def plain_norm(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    return weight * (states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + epsilon))


def counted(calls: Counter[str]) -> FusedKernels:
    """Functions that compute as the stock layers do, and say that they were called."""

    def noted(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (calls.update([name]), function(*args))[1]

    return FusedKernels(
        rms_norm=noted("norm", plain_norm),
        rotate=noted("rotate", STOCK_ROTATE),
        gate=noted("gate", lambda first, second: silu(first) * second),
    )


def learned(model: Any, pack: Any) -> dict[str, Tensor]:
    model.zero_grad()
    loss = model(pack=pack.model_tensors(), normalizer=2.0).loss
    loss.backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    assert all(value is not None for value in gradients.values())
    return {"loss": loss.detach(), **gradients}


@pytest.fixture
def pack(pack_of: Any, picture: Any) -> Any:
    return pack_of([((picture(0),), "What?", "A cup."), ((), "Two and two?", "Four.")])


def test_every_layer_calls_them_and_nothing_else_changes(
    checkpoint: Checkpoint, pack: Any, tmp_path: Path
) -> None:
    model, fused = checkpoint.model, copy.deepcopy(checkpoint.model)
    calls: Counter[str] = Counter()
    num_layers = model.config.text_config.num_hidden_layers
    assert fuse_layers(fused, counted(calls)) == 4 * num_layers + 1
    expected, found = learned(model, pack), learned(fused, pack)
    assert calls == {"norm": 2 * num_layers + 1, "rotate": num_layers, "gate": num_layers}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **CLOSE, msg=name)
    learned(copy.deepcopy(fused), pack)
    assert calls["gate"] == 2 * num_layers, "a copy calls them too"
    assert modeling_llama.apply_rotary_pos_emb is STOCK_ROTATE
    fused.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert type(again.model.text_model.norm) is modeling_llama.LlamaRMSNorm
    assert again.state_dict().keys() == model.state_dict().keys()


def test_generation_goes_through_them(checkpoint: Checkpoint) -> None:
    fused, calls = copy.deepcopy(checkpoint.model).eval(), Counter[str]()
    fuse_layers(fused, counted(calls))
    wanted = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    inputs = {"input_ids": torch.arange(9)[None] + 300, "attention_mask": torch.ones(1, 9).long()}
    expected = checkpoint.model.eval().generate(**inputs, **wanted)
    assert torch.equal(fused.generate(**inputs, **wanted), expected)
    assert calls["rotate"] >= 5


# ---- what is missing


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fused_layers, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="liger-kernel is not installed") as caught:
        liger_kernels("cuda")
    assert "pip install liger-kernel" in str(caught.value)
    assert "train.use_liger_kernel=true" in str(caught.value)


def test_without_a_gpu_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_layers, "find_spec", lambda _name: object())
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match="for CUDA, and the run trains on cpu"):
        liger_kernels("cpu")


def test_a_model_of_other_layers_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="none of the layers"):
        fuse_layers(checkpoint.model.model.vision_model, counted(Counter()))


def test_another_activation_is_refused(checkpoint: Checkpoint) -> None:
    model = copy.deepcopy(checkpoint.model)
    for layer in model.model.text_model.layers:
        layer.mlp.config = copy.deepcopy(layer.mlp.config)
        layer.mlp.config.hidden_act = "gelu"
    with pytest.raises(ConfigError, match="activation is gelu"):
        fuse_layers(model, counted(Counter()))


# ---- Liger's kernels, by Triton's interpreter


def test_ligers_kernels_equal_the_stock_layers() -> None:
    pytest.importorskip("liger_kernel", reason="the package liger-kernel is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "tests.model.interpreted_kernels"],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "1"},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(found)
    assert set(found) == {"norm", "rotate", "gate"}
    assert max(found.values()) < 1e-6


# ---- how many operations


class Operations(TorchDispatchMode):
    """Counts what is dispatched, but for views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view and func is not torch.ops.aten._unsafe_view.default
        return func(*args, **(kwargs or {}))


class OneOperation(torch.autograd.Function):
    """A kernel's stand-in: one operation forward and one backward, whose values mean nothing."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return inputs[0].clone()

    @staticmethod
    def backward(ctx: Any, *_upstream: Tensor) -> Any:
        return tuple(torch.empty_like(value) for value in ctx.saved_tensors)


def stand_ins() -> FusedKernels:
    def rotate(queries: Tensor, keys: Tensor, *_angles: Tensor) -> tuple[Tensor, Tensor]:
        return OneOperation.apply(queries), OneOperation.apply(keys)

    return FusedKernels(
        rms_norm=lambda states, weight, _epsilon: OneOperation.apply(states, weight),
        rotate=rotate,
        gate=lambda first, second: OneOperation.apply(first, second),
    )


def operations(
    loaded: Checkpoint,
    pack: Any,
    *,
    layers: int,
    is_fused: bool,
    is_half: bool,
    has_masters: bool = False,
) -> int:
    config = copy.deepcopy(loaded.model.config)
    config.text_config.num_hidden_layers = layers
    model = MODEL_CLASSES[config.model_type](config)
    model.set_pixel_scaling(loaded.model.pixel_scaling)
    model.use_scope_attention()
    if is_fused:
        fuse_layers(model, stand_ins())
    if has_masters:
        MasterWeights(model)
    # As a GPU computes: not in the ways of a CPU.
    with using_choices(STOCK_CHOICES), Operations() as found:
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            loss = model(pack=pack.model_tensors(), normalizer=2.0).loss
        loss.backward()
    return found.count


@pytest.mark.parametrize(
    ("is_half", "has_masters", "before", "after"),
    [(False, False, 107, 49), (True, False, 142, 75), (True, True, 127, 61)],
    ids=["float32", "autocast", "master weights"],
)
def test_a_layer_takes_far_fewer_operations(
    checkpoint: Checkpoint, pack: Any, is_half: bool, has_masters: bool, before: int, after: int
) -> None:
    """Each costs a GPU 5 to 8 us to launch. Lower what fell."""

    def of_a_layer(*, is_fused: bool) -> int:
        one, two = (
            operations(
                checkpoint,
                pack,
                layers=layers,
                is_fused=is_fused,
                is_half=is_half,
                has_masters=has_masters,
            )
            for layers in (1, 2)
        )
        return two - one

    found = of_a_layer(is_fused=False), of_a_layer(is_fused=True)
    print(found)
    assert found[0] <= before
    assert found[1] <= after
