"""The ranks that hold one pack together, while the model runs.

In: a pack's `ContextShare`. Out: the scope that the layers ask, over keys and values of all ranks;
features of the tiles that this rank shows, whoever encoded them. Groups are ranks that follow one
another: on machines with several GPUs they are those of one machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from smolvlm.model.context_ranks.collectives import exchange_rows, gather_rows
from smolvlm.model.context_ranks.ring import ring_attention
from smolvlm.model.context_ranks.share import ContextShare, Rectangle, TileExchange


@dataclass(frozen=True, slots=True)
class ContextGroup:
    """This rank's context group."""

    process_group: Any
    """For tensors on the ranks' devices."""
    cpu_group: Any
    """The same ranks, for tensors on the CPU."""

    @classmethod
    def join(cls, *, num_ranks: int, device_type: str) -> "ContextGroup":
        """Make all context groups, and return this rank's; every rank of the run calls it.

        Args:
            num_ranks: of a context group; divides the ranks of the run.
            device_type: of the ranks' devices.
        """
        rank, world_size = dist.get_rank(), dist.get_world_size()
        own: list[Any] = []
        for first in range(0, world_size, num_ranks):
            members = list(range(first, first + num_ranks))
            groups = [dist.new_group(members)]
            groups.append(
                groups[0] if device_type == "cpu" else dist.new_group(members, backend="gloo")
            )
            if rank in members:
                own = groups
        return cls(*own)

    def scope(self, share: ContextShare) -> "GatheredScope | RingScope":
        """Return what the layers ask of a pack."""
        rectangles = [None if plan.is_empty else plan.laid() for plan in share.rectangles]
        if share.goes_round:
            return RingScope(rectangles, share, self.process_group)
        (rectangle,) = rectangles
        assert rectangle is not None, "every query sees itself"
        return GatheredScope(rectangle, share, self.process_group)

    def exchange(
        self, features: Float[Tensor, "tile tokens hidden"], plan: TileExchange
    ) -> Float[Tensor, "received tokens hidden"]:
        """Return the features of the tiles that this rank shows; every rank of the group calls it.

        Args:
            features: of the tiles that this rank encoded; at least one, if only a blank one.
            plan: who sends what.
        """
        return exchange_rows(
            features.index_select(0, plan.sent_rows),
            num_sent=plan.num_sent,
            num_received=plan.num_received,
            group=self.process_group,
        )

    def has_same(self, digests: Sequence[int]) -> bool:
        """Say whether all ranks of the group have the same numbers."""
        own = torch.tensor([*digests, *(-digest for digest in digests)])
        most = own.clone()
        dist.all_reduce(most, op=dist.ReduceOp.MAX, group=self.cpu_group)
        return bool((most == own).all())


def _scale_of(query: Tensor, scale: float | None) -> float:
    return query.shape[-1] ** -0.5 if scale is None else scale


def _as_computed(*states: Tensor) -> tuple[Tensor, ...]:
    """Return states in the type that attention is computed in: autocast's where it is on, as SDPA
    and `flex_attention` cast them. Sent in it too, they are half as many bytes."""
    device_type = states[0].device.type
    if not torch.is_autocast_enabled(device_type):
        return states
    return tuple(state.to(torch.get_autocast_dtype(device_type)) for state in states)


def _check_dropout(dropout: float) -> None:
    if dropout:
        raise ValueError(
            "attention over several ranks has no dropout; set attention_dropout to 0 in the text "
            "config"
        )


@dataclass(frozen=True, slots=True)
class GatheredScope:
    """Own queries over the keys and values of all ranks, gathered once a layer."""

    rectangle: Rectangle
    share: ContextShare
    process_group: Any

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, dropout: float
    ) -> Tensor:
        _check_dropout(dropout)
        query, key, value = _as_computed(query, key, value)
        own = torch.cat([key[0], value[0]])  # (key heads and value heads, own, head)
        heads, num_own, size = own.shape
        rows = gather_rows(
            own.transpose(0, 1).reshape(num_own, heads * size),
            self.share.key_order,
            num_padded=max(self.share.num_tokens),
            group=self.process_group,
        )
        keys, values = rows.view(-1, heads, size).transpose(0, 1)[None].chunk(2, dim=1)
        return self.rectangle.attend(query, keys, values, scale=_scale_of(query, scale))


@dataclass(frozen=True, slots=True)
class RingScope:
    """Own queries over the keys and values of each rank, as they come by."""

    rectangles: Sequence[Rectangle | None]
    share: ContextShare
    process_group: Any

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, dropout: float
    ) -> Tensor:
        _check_dropout(dropout)
        query, key, value = _as_computed(query, key, value)
        return ring_attention(
            (query, key, value),
            self.rectangles,
            self.share.num_tokens,
            scale=_scale_of(query, scale),
            group=self.process_group,
        )
