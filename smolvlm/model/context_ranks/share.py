"""What a rank knows of the pack of which it holds a part.

In, from the loader: who holds how many tokens, which tiles it encodes for whom, how its queries see
all keys. Everything is found on the CPU before the pack reaches a device; the step exchanges
tensors, never sizes.
"""

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from jaxtyping import Float, Int64
from torch import Tensor


class Rectangle(Protocol):
    """Attention of a rank's own queries over some keys, in the order of the pack."""

    def attend(
        self,
        query: Float[Tensor, "1 heads own head"],
        key: Float[Tensor, "1 kv_heads key head"],
        value: Float[Tensor, "1 kv_heads key head"],
        *,
        scale: float,
    ) -> Float[Tensor, "1 heads own head"]:
        """Return the attended values, with gradients."""
        ...

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float
    ) -> tuple[Float[Tensor, "1 heads own head"], Float[Tensor, "1 heads own"]]:
        """Return the attended values and the log of the summed exponentials (natural), without
        gradients; a query that sees no key has 0 and minus infinity."""
        ...

    def backward(
        self,
        states: tuple[Tensor, Tensor, Tensor],
        whole: tuple[Tensor, Tensor],
        upstream: Tensor,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gradients of query, key and value that come from these keys.

        Args:
            states: query, key and value.
            whole: what all keys together gave, as `forward` returns it.
            upstream: gradient of the attended values.
            scale: of the scores.
        """
        ...


class RectanglePlan(Protocol):
    """What is known of a rectangle before it reaches a device."""

    @property
    def is_empty(self) -> bool:
        """Whether no query sees any key."""
        ...

    def tensors(self) -> tuple[Tensor, ...]: ...

    def pin_memory(self) -> "RectanglePlan": ...

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "RectanglePlan": ...

    def laid(self) -> Rectangle:
        """Return the rectangle on the plan's device."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class TileExchange:
    """Who encodes which tiles for whom. None of a pack without image slots."""

    sent_rows: Int64[Tensor, " sent"]
    """Rows of this rank's features, computed ones before cached ones: those that go to rank 0, then
    to rank 1 ..."""
    num_sent: tuple[int, ...]
    num_received: tuple[int, ...]
    image_rows: Int64[Tensor, " image_token"]
    """Of each image token that this rank holds: its row among the tokens of the slots that the
    rank shows any token of."""

    def tensors(self) -> tuple[Tensor, ...]:
        return self.sent_rows, self.image_rows

    def pin_memory(self) -> "TileExchange":
        return replace(
            self, sent_rows=self.sent_rows.pin_memory(), image_rows=self.image_rows.pin_memory()
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TileExchange":
        return replace(
            self,
            sent_rows=self.sent_rows.to(device, non_blocking=non_blocking),
            image_rows=self.image_rows.to(device, non_blocking=non_blocking),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ContextShare:
    """A rank's part of a pack, seen from the whole."""

    rank: int
    """In the context group."""
    num_tokens: tuple[int, ...]
    """Tokens that each rank of the group holds."""
    num_counted: int
    """Tokens of this rank that are rows' and no filling."""
    key_order: Int64[Tensor, " key"]
    """Where each token of the pack, in its order, stands in what the ranks gather: rank after rank,
    each filled up to the longest."""
    rectangles: tuple[RectanglePlan, ...]
    """Own queries by all keys, where they are gathered; by each rank's, where they go round."""
    exchange: TileExchange | None
    digest: int
    """Of the whole pack: all ranks of a group must have read the same."""

    @property
    def goes_round(self) -> bool:
        """Whether keys and values go round the ranks instead of being gathered."""
        return len(self.rectangles) > 1

    def tensors(self) -> tuple[Tensor, ...]:
        own = () if self.exchange is None else self.exchange.tensors()
        planned = (tensor for plan in self.rectangles for tensor in plan.tensors())
        return (self.key_order, *own, *planned)

    def pin_memory(self) -> "ContextShare":
        return replace(
            self,
            key_order=self.key_order.pin_memory(),
            rectangles=tuple(plan.pin_memory() for plan in self.rectangles),
            exchange=None if self.exchange is None else self.exchange.pin_memory(),
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "ContextShare":
        exchange = self.exchange
        return replace(
            self,
            key_order=self.key_order.to(device, non_blocking=non_blocking),
            rectangles=tuple(plan.to(device, non_blocking) for plan in self.rectangles),
            exchange=None if exchange is None else exchange.to(device, non_blocking),
        )
