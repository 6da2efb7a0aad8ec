"""Products of float32 matrices by oneDNN, which torch leaves to another library.

In: operands of `torch.nn.functional.linear` on a CPU. Out: what it returns. torch (2.14) multiplies
bfloat16 by oneDNN and float32 by MKL, which on CPUs of other makers than its own takes half their
units: 110 GFLOP/s a thread on a Zen 5 where oneDNN reaches 245
(`python -m benchmarks.products`). `onednn_products` is a context in which every linear layer of
float32 operands, and its gradients, are computed by oneDNN. The arithmetic is float32's in either
library; sums are added up in another order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from smolvlm.model.cpu_choices import current_choices


def has_onednn() -> bool:
    """Say whether torch can be asked for oneDNN's products of float32 (torch 2.14, private)."""
    return (
        torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def takes_onednn(operand: Tensor) -> bool:
    """Say whether this process chose oneDNN for products of an operand."""
    return (
        operand.dtype == torch.float32
        and operand.device.type == "cpu"
        and current_choices().onednn_products
        and has_onednn()
    )


def product(left: Tensor, right: Tensor) -> Tensor:
    """Return left right of float32 matrices, by oneDNN."""
    return _pointwise(left, right.t(), None)


@contextmanager
def onednn_products(device_type: str) -> Iterator[None]:
    """Let linear layers be computed as this process chose.

    Forward and backward passes both run in it: activation checkpointing computes again in the
    backward pass what it kept nothing of, and takes what it finds for what it missed. So torch's
    function itself is replaced; a mode of torch's would be left while a backward pass runs.

    Args:
        device_type: where the model computes.
    """
    if device_type != "cpu" or not current_choices().onednn_products or not has_onednn():
        yield
        return
    stock = functional.linear

    def chosen(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        multiply = linear_by_onednn if can_multiply(input, weight, bias) else stock
        return multiply(input, weight, bias)

    functional.linear = chosen
    try:
        yield
    finally:
        functional.linear = stock


def can_multiply(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Say whether `linear` of these is one of float32 matrices on a CPU, autocast or not."""
    return (
        all(
            type(value) in (Tensor, torch.nn.Parameter)
            and value.dtype == torch.float32
            and value.device.type == "cpu"
            for value in (input, weight, *(() if bias is None else (bias,)))
        )
        and not torch.is_autocast_enabled("cpu")
        and input.numel() > 0
        and input.dim() > 1
    )


def linear_by_onednn(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `linear` of float32 matrices, with gradients."""
    if torch.is_grad_enabled() and any(
        value is not None and value.requires_grad for value in (input, weight, bias)
    ):
        return _Linear.apply(input, weight, bias)
    return _pointwise(input, weight, bias)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - its own arguments
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        # What no gradient needs is not kept.
        by_states, by_weight = ctx.needs_input_grad[:2]
        ctx.save_for_backward(states if by_weight else None, weight if by_states else None)
        return _pointwise(states, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        states, weight = ctx.saved_tensors
        by_states, by_weight, by_bias = ctx.needs_input_grad
        rows = upstream.flatten(0, -2)
        return (
            _pointwise(upstream, weight.t(), None) if by_states else None,
            product(rows.t(), states.flatten(0, -2)) if by_weight else None,
            rows.sum(0) if by_bias else None,
        )


def _pointwise(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(_dense(states), _dense(weight), bias, "none", [], "")


def _dense(matrix: Tensor) -> Tensor:
    """Return a matrix, or a copy where its rows (or columns) do not lie side by side.

    For other layouts oneDNN may have nothing but its reference code, a thousand times slower.
    """
    is_dense = matrix.is_contiguous() or (matrix.dim() == 2 and matrix.t().is_contiguous())
    return matrix if is_dense else matrix.contiguous()
