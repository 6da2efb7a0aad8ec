"""What the ranks of a context group exchange, with gradients.

Sizes are known to all beforehand. A rank that has nothing to send takes part all the same, forward
and backward: its inputs must need a gradient where the others' do.
"""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor

# torch 2.14 renamed them, and warns of the former names.
_all_gather: Any = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter: Any = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


def gather_rows(
    own: Float[Tensor, "own width"],
    order: Int64[Tensor, " row"],
    *,
    num_padded: int,
    group: dist.ProcessGroup,
) -> Float[Tensor, "row width"]:
    """Return the rows of all ranks; gradients of a row are summed on the rank that holds it.

    Args:
        own: this rank's.
        order: which of the gathered rows are returned, in order: rank after rank, each filled up to
            `num_padded`.
        num_padded: the most rows of a rank.
        group: of the ranks.
    """
    return _GatherRows.apply(own, order, num_padded, group)  # type: ignore[no-any-return]


def padded(own: Tensor, num_rows: int) -> Tensor:
    """Return rows filled up with zeros."""
    if len(own) == num_rows:
        return own.contiguous()
    return torch.cat([own, own.new_zeros(num_rows - len(own), *own.shape[1:])])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, order: Tensor, num_padded: int, group: Any) -> Tensor:
        gathered = own.new_empty(num_padded * dist.get_world_size(group), own.shape[1])
        _all_gather(gathered, padded(own, num_padded), group=group)
        ctx.save_for_backward(order)
        ctx.sizes, ctx.group = (len(own), num_padded), group
        return gathered.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (upstream,), (order,) = grad_outputs, ctx.saved_tensors
        num_own, num_padded = ctx.sizes
        size = num_padded * dist.get_world_size(ctx.group)
        scattered = upstream.new_zeros(size, upstream.shape[1]).index_copy(0, order, upstream)
        own = upstream.new_empty(num_padded, upstream.shape[1])
        _reduce_scatter(own, scattered, group=ctx.group)
        return own[:num_own], None, None, None


def exchange_rows(
    rows: Tensor, *, num_sent: tuple[int, ...], num_received: tuple[int, ...], group: Any
) -> Tensor:
    """Return the rows that all ranks sent here, rank after rank.

    Args:
        rows: those that go to rank 0, then to rank 1 ...
        num_sent: how many go to each rank.
        num_received: how many come from each.
        group: of the ranks.
    """
    return _ExchangeRows.apply(rows, num_sent, num_received, group)  # type: ignore[no-any-return]


class _ExchangeRows(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, num_sent: tuple[int, ...], num_received: tuple[int, ...], group: Any
    ) -> Tensor:
        ctx.numbers, ctx.group = (num_sent, num_received), group
        return _sent(rows, num_sent, num_received, group)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None]:
        (upstream,), (num_sent, num_received) = grad_outputs, ctx.numbers
        return _sent(upstream, num_received, num_sent, ctx.group), None, None, None


def _sent(
    rows: Tensor, num_sent: tuple[int, ...], num_received: tuple[int, ...], group: Any
) -> Tensor:
    received = rows.new_empty(sum(num_received), *rows.shape[1:])
    dist.all_to_all_single(
        received, rows.contiguous(), list(num_received), list(num_sent), group=group
    )
    return received
