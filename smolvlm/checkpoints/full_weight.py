"""A linear layer whose weight is restored from fewer bits whenever it multiplies.

In: inputs and a layer that can restore its weight. Out: the product, and in the backward pass the
gradient of the inputs. bitsandbytes' layers compute so (`quantized_layers.py`), and so do the
stand-ins that a run is planned with, which need no bitsandbytes (`smolvlm/plan/quantized.py`).
"""

from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RestoresWeight(Protocol):
    """A layer that holds its weight in fewer bits."""

    def full_weight(self, dtype: torch.dtype) -> Float[Tensor, "out in"]: ...


class WithFullWeight(torch.autograd.Function):
    """inputs @ weight.T + bias; the weight is restored again for the backward pass, not kept."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, bias: Tensor | None, layer: RestoresWeight, dtype: torch.dtype
    ) -> Tensor:
        ctx.layer, ctx.dtype, ctx.input_dtype = layer, dtype, inputs.dtype
        own_bias = None if bias is None else bias.to(dtype)
        return nn.functional.linear(inputs.to(dtype), layer.full_weight(dtype), own_bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        (gradient,) = gradients
        of_inputs, of_bias = ctx.needs_input_grad[:2]
        weight = ctx.layer.full_weight(ctx.dtype) if of_inputs else None
        return (
            None if weight is None else (gradient.to(ctx.dtype) @ weight).to(ctx.input_dtype),
            gradient.flatten(0, -2).sum(0) if of_bias else None,
            None,
            None,
        )


def compute_dtype(inputs: Tensor) -> torch.dtype:
    """Return the type that a linear layer computes in: autocast's where on, else the inputs'."""
    device_type = inputs.device.type
    return (
        torch.get_autocast_dtype(device_type)
        if torch.is_autocast_enabled(device_type)
        else inputs.dtype
    )
