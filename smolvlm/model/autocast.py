"""The types that autocast gives operands, for code that computes products of its own."""

import torch
from torch import Tensor


def product_dtype(operand: Tensor) -> torch.dtype:
    """Return the type in which a product takes an operand: autocast's, which leaves float64."""
    kind = operand.device.type
    is_cast = (
        operand.dtype != torch.float64
        and torch.amp.is_autocast_available(kind)
        and torch.is_autocast_enabled(kind)
    )
    return torch.get_autocast_dtype(kind) if is_cast else operand.dtype


def product_operands(*operands: Tensor) -> tuple[Tensor, ...]:
    """Return operands in the types in which a product takes them."""
    return tuple(operand.to(product_dtype(operand)) for operand in operands)
