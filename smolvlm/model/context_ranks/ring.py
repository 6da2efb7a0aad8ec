"""Ring attention: keys and values go round the ranks, and are never all in one place.

In: own queries, keys and values, and a rectangle for the keys of each rank. Each visit's result is
merged into the others' by the log of their summed exponentials (Liu et al., 2023, arXiv 2310.01889;
the merge is that of FlashAttention). Going back, keys and values go round once more, and their
gradients with them. A visit that sees nothing is passed over. What stays for the backward pass is a
rank's own.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from smolvlm.model.attention.merging import merged
from smolvlm.model.context_ranks.collectives import padded
from smolvlm.model.context_ranks.share import Rectangle


def ring_attention(
    states: tuple[Tensor, Tensor, Tensor],
    rectangles: Sequence[Rectangle | None],
    num_tokens: tuple[int, ...],
    *,
    scale: float,
    group: Any,
) -> Tensor:
    """Return the attended values of a rank's own queries.

    Args:
        states: own query, key and value, (1, heads, own, head).
        rectangles: own queries by each rank's keys; None where none is seen.
        num_tokens: of each rank.
        scale: of the scores.
        group: of the ranks.
    """
    return _Ring.apply(*states, tuple(rectangles), num_tokens, scale, group)  # type: ignore[no-any-return]


class _Ring(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913 - autograd hands them over one by one
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rectangles: Sequence[Rectangle | None],
        num_tokens: tuple[int, ...],
        scale: float,
        group: Any,
    ) -> Tensor:
        whole: tuple[Tensor, Tensor] | None = None
        passing, last = _packed(key, value, max(num_tokens)), _last_owner(group)
        for owner, rectangle in _visits(rectangles, group):
            if rectangle is not None:
                keys, values = _unpacked(passing, num_tokens[owner])
                visit = rectangle.forward(query, keys, values, scale=scale)
                whole = visit if whole is None else merged(whole, visit)
            if owner != last:
                passing = _passed_on(passing, group)
        assert whole is not None, "every query sees itself"
        ctx.save_for_backward(query, key, value, *whole)
        ctx.others = (rectangles, num_tokens, scale, group)
        return whole[0].to(query.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        (upstream,) = grad_outputs
        query, key, value, output, log_sum = ctx.saved_tensors
        rectangles, num_tokens, scale, group = ctx.others
        longest = max(num_tokens)
        passing, last = _packed(key, value, longest), _last_owner(group)
        gradients = torch.zeros_like(passing, dtype=output.dtype)
        query_gradient = torch.zeros_like(output)
        for owner, rectangle in _visits(rectangles, group):
            if rectangle is not None:
                keys, values = _unpacked(passing, num_tokens[owner])
                of_query, of_key, of_value = rectangle.backward(
                    (query, keys, values), (output, log_sum), upstream, scale=scale
                )
                query_gradient += of_query
                gradients += _packed(of_key, of_value, longest)
            if owner != last:
                passing = _passed_on(passing, group)
            gradients = _passed_on(gradients, group)
        # After as many passes as there are ranks the gradients are home.
        of_key, of_value = _unpacked(gradients, key.shape[2])
        dtype = query.dtype
        return query_gradient.to(dtype), of_key.to(dtype), of_value.to(dtype), *[None] * 4


def _visits(
    rectangles: Sequence[Rectangle | None], group: Any
) -> list[tuple[int, Rectangle | None]]:
    """Return whose keys are here, visit by visit, and how they are seen."""
    rank, number = dist.get_rank(group), len(rectangles)
    owners = [(rank - visit) % number for visit in range(number)]
    return [(owner, rectangles[owner]) for owner in owners]


def _last_owner(group: Any) -> int:
    """Return whose keys come last: those of the next rank, which are not passed on."""
    return (dist.get_rank(group) + 1) % dist.get_world_size(group)


def _packed(key: Tensor, value: Tensor, num_padded: int) -> Tensor:
    """Return keys and values as one tensor, (padded, key or value, kv heads, head)."""
    return padded(torch.stack([key[0], value[0]]).permute(2, 0, 1, 3), num_padded)


def _unpacked(packed: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
    key, value = packed[:num_tokens].permute(1, 2, 0, 3)
    return key[None], value[None]


def _passed_on(tensor: Tensor, group: Any) -> Tensor:
    """Send a tensor to the next rank, and return that of the one before."""
    rank, number = dist.get_rank(group), dist.get_world_size(group)
    received = torch.empty_like(tensor)
    after, before = (dist.get_global_rank(group, other % number) for other in (rank + 1, rank - 1))
    for work in dist.batch_isend_irecv(
        [
            dist.P2POp(dist.isend, tensor, after, group),
            dist.P2POp(dist.irecv, received, before, group),
        ]
    ):
        work.wait()
    return received
