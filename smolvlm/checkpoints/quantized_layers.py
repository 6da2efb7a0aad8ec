"""bitsandbytes' layers as they compute here: the one file that knows how it holds weights (tried
with 0.50).

In: a layer that bitsandbytes quantised. Out: the same layer, whose forward and backward bring the
weight back to the type that the run computes in and multiply. bitsandbytes' own forward of 8 bits
rounds the activations too where it does not train on a CPU, and chooses the columns it leaves out
of that from all tokens at once: a token's result would depend on its neighbours in the pack, and on
whether the model trains or is evaluated. Its 4-bit forward rounds to bfloat16 without being asked,
while evaluating on some processors. The price on a GPU: no 8-bit matrix product.

Importing this file imports bitsandbytes, which takes seconds.
tests/checkpoints/test_quantization.py holds the seam.
"""

from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from jaxtyping import Float
from torch import Tensor, nn

from smolvlm.checkpoints.full_weight import WithFullWeight, compute_dtype


class ExactLinear8bit(Linear8bitLt):
    """A layer whose weights are whole numbers from -127 to 127 times a scale a row."""

    def full_weight(self, dtype: torch.dtype) -> Float[Tensor, "out in"]:
        weight: Any = self.weight
        return weight.data.to(dtype, copy=True).mul_(weight.SCB.unsqueeze(1).mul(1.0 / 127.0))

    def forward(self, x: Float[Tensor, "*axes in"]) -> Float[Tensor, "*axes out"]:
        return WithFullWeight.apply(x, self.bias, self, compute_dtype(x))


class ExactLinear4bit(Linear4bit):
    """A layer whose weights are one of sixteen values times a scale a block."""

    def full_weight(self, dtype: torch.dtype) -> Float[Tensor, "out in"]:
        weight: Any = self.weight
        return dequantize_4bit(weight.data, weight.quant_state).to(dtype)

    def forward(self, x: Float[Tensor, "*axes in"]) -> Float[Tensor, "*axes out"]:
        return WithFullWeight.apply(x, self.bias, self, compute_dtype(x))


def use_exact_matmul(model: nn.Module) -> None:
    """Let all quantised layers of a model compute as this file says, in place."""
    for module in model.modules():
        if type(module) is Linear8bitLt:
            # The same fields, so peft and saving know it for what it was.
            module.__class__ = ExactLinear8bit
        elif type(module) is Linear4bit:
            module.__class__ = ExactLinear4bit


def is_quantized(layer: nn.Module) -> bool:
    """Say whether a layer's weights are really held in few bits."""
    weight: Any = getattr(layer, "weight", None)
    if isinstance(layer, ExactLinear8bit):
        return (
            isinstance(weight, Int8Params) and weight.dtype == torch.int8 and weight.SCB is not None
        )
    return (
        isinstance(layer, ExactLinear4bit)
        and isinstance(weight, Params4bit)
        and weight.quant_state is not None
    )


def restore_linear_layers(model: nn.Module, dtype: torch.dtype) -> None:
    """Put ordinary linear layers in place of a model's quantised ones, in place.

    Args:
        model: after `use_exact_matmul`.
        dtype: of their weights, which are those that the quantised layers compute with.
    """
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, ExactLinear8bit | ExactLinear4bit):
            continue
        full = nn.Linear(layer.in_features, layer.out_features, bias=False, dtype=dtype)
        full.weight = nn.Parameter(layer.full_weight(dtype), requires_grad=False)
        if layer.bias is not None:
            full.bias = nn.Parameter(layer.bias.detach().to(dtype), requires_grad=False)
        model.set_submodule(name, full)


def held_bytes(layer: Any) -> int:
    """Return what a quantised layer's weight takes, scales and all."""
    weight = layer.weight
    if isinstance(layer, ExactLinear8bit):
        return weight.nbytes + weight.SCB.nbytes
    state = weight.quant_state
    scales = [state.absmax, state.code]
    if state.nested:
        scales += [state.offset, state.state2.absmax, state.state2.code]
    return weight.nbytes + sum(scale.nbytes for scale in scales)
