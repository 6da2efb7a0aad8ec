"""Attention over packs on CUDA: `flex_attention`, one fused kernel that skips what the rule hides.

In: `scope_end`. Out: a `FlexPlan`: for each block of 128 queries the blocks of keys that it sees,
in part or whole. The lists follow from the largest and the smallest `scope_end` of each block of
keys, so no table of seq x seq is ever made (torch's `create_block_mask` makes one for every pack,
on the device). For a block of queries [c, d) and an earlier block of keys k:

    some query sees some key  <=>  max scope_end[k] > c
    every query sees every key <=>  min scope_end[k] >= d

A block sees itself in part, as it is causal, and nothing later. The lists of the backward pass are
the transposed tables.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Int, Int32
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

BLOCK_SIZE = 128
"""Queries and keys of a block: what torch's kernels take by default."""
KERNEL_OPTIONS = {"FORCE_USE_FLEX_ATTENTION": True}
"""One kernel for packs of every length: below 128 queries torch would choose its decoding kernel,
another graph."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FlexPlan:
    """The block lists of one pack.

    Axis `list`: partly seen keys, wholly seen keys, and both again by key.
    """

    num_blocks: Int32[Tensor, "list=4 block"]
    """How many entries of each row of `block_numbers` count."""
    block_numbers: Int32[Tensor, "list=4 block block"]
    """The blocks that each block is attended with, in order; behind those that count stand the
    others."""

    def tensors(self) -> tuple[Tensor, ...]:
        return self.num_blocks, self.block_numbers

    def pin_memory(self) -> "FlexPlan":
        return FlexPlan(
            num_blocks=self.num_blocks.pin_memory(), block_numbers=self.block_numbers.pin_memory()
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "FlexPlan":
        return FlexPlan(
            num_blocks=self.num_blocks.to(device, non_blocking=non_blocking),
            block_numbers=self.block_numbers.to(device, non_blocking=non_blocking),
        )

    def over(self, scope_end: Int[Tensor, " seq"]) -> "FlexScope":
        from torch.nn.attention.flex_attention import BlockMask

        def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (key <= query) & (query < scope_end[key])

        counts, numbers = self.num_blocks[:, None, None], self.block_numbers[:, None, None]
        names = ("kv", "full_kv", "q", "full_q")
        lists: dict[str, Any] = {
            f"{name}_num_blocks": count for name, count in zip(names, counts, strict=True)
        }
        lists |= {f"{name}_indices": number for name, number in zip(names, numbers, strict=True)}
        block_mask = BlockMask(
            seq_lengths=(len(scope_end), len(scope_end)),
            BLOCK_SIZE=(BLOCK_SIZE, BLOCK_SIZE),
            mask_mod=sees,
            **lists,
        )
        return FlexScope(block_mask)


def plan_flex(scope_end: Int[np.ndarray, " seq"]) -> FlexPlan:
    """Return the block lists of a pack."""
    partly, wholly = block_tables(scope_end)
    tables = np.stack([partly, wholly, partly.T, wholly.T])
    return FlexPlan(
        num_blocks=torch.from_numpy(tables.sum(axis=-1, dtype=np.int32)),
        block_numbers=torch.from_numpy(
            np.argsort(~tables, axis=-1, kind="stable").astype(np.int32)
        ),
    )


def block_tables(
    scope_end: Int[np.ndarray, " seq"], *, block_size: int = BLOCK_SIZE
) -> tuple[Bool[np.ndarray, "query_block key_block"], Bool[np.ndarray, "query_block key_block"]]:
    """Return which blocks of queries see which blocks of keys in part, and which wholly.

    A last block that is not full is seen in part at most: the kernels take its missing tokens for
    masked ones.
    """
    length = len(scope_end)
    begins = np.arange(0, length, block_size)
    ends = begins + block_size
    last_seen = np.maximum.reduceat(scope_end, begins)
    first_unseen = np.minimum.reduceat(scope_end, begins)
    is_earlier = begins[None, :] < begins[:, None]
    is_seen = is_earlier & (last_seen[None, :] > begins[:, None]) | np.eye(len(begins), dtype=bool)
    wholly = is_earlier & (first_unseen[None, :] >= ends[:, None])
    return is_seen & ~wholly, wholly


@dataclass(frozen=True, slots=True)
class FlexScope:
    """A pack on CUDA."""

    block_mask: "BlockMask"

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, dropout: float
    ) -> Tensor:
        if dropout:
            raise ValueError(
                "flex_attention has no dropout; set attention_dropout to 0 in the text config"
            )
        return flex_kernel()(
            query,
            key,
            value,
            block_mask=self.block_mask,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
            kernel_options=dict(KERNEL_OPTIONS),
        )


@cache
def flex_kernel() -> Callable[..., Tensor]:
    """Return torch's `flex_attention`, compiled where there is a GPU, for packs of any length.

    As a whole graph: after its eighth graph (torch's limit) a function would else run uncompiled,
    without a word.
    """
    from torch.nn.attention.flex_attention import flex_attention

    if not torch.cuda.is_available():
        return flex_attention
    return torch.compile(flex_attention, dynamic=True, fullgraph=True)
