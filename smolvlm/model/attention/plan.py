"""What every kind of device has for a pack's attention: a plan, and from it a scope.

The loader plans; a plan moves to the device with its pack, and becomes what the layers ask there.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor


class Scope(Protocol):
    """What a layer asks: attention of one pack."""

    def attend(
        self,
        query: Float[Tensor, "1 heads seq head"],
        key: Float[Tensor, "1 kv_heads seq head"],
        value: Float[Tensor, "1 kv_heads seq head"],
        *,
        scale: float | None,
        dropout: float,
    ) -> Float[Tensor, "1 heads seq head"]: ...


class AttentionPlan(Protocol):
    """What is known of a pack's attention before it reaches a device."""

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that it holds."""
        ...

    def pin_memory(self) -> "AttentionPlan":
        """Return it in page-locked memory; torch's loader asks for that."""
        ...

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "AttentionPlan":
        """Return it on a device; accelerate's loader asks for that."""
        ...

    def over(self, scope_end: Int[Tensor, " seq"]) -> Scope:
        """Return the attention of the pack that it was planned for, both on the same device."""
        ...


PlanAttention = Callable[[Int[np.ndarray, " seq"]], AttentionPlan]
"""Plans a pack's attention from its `scope_end`."""
