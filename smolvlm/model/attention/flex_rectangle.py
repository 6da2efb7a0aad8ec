"""A rectangle of attention on CUDA: some of a pack's queries by some of its keys.

In: as `rectangle.py`. Out: the block lists of `flex_attention` for it. A block of 128 queries is
known by its first and last position, one of keys also by the largest and smallest `scope_end` in
it: what may be seen is seen in part, and the kernel asks the rule; what is certainly seen is seen
whole. Held to the dense rule on the CPU through the operator's plain form; **it has not run on a
GPU yet**.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from smolvlm.model.attention.flex import BLOCK_SIZE, KERNEL_OPTIONS, flex_kernel

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

_NAMES = ("kv", "full_kv", "q", "full_q")


@dataclass(frozen=True, kw_only=True, slots=True)
class FlexRectanglePlan:
    """The block lists of a rectangle."""

    num_blocks: tuple[Tensor, Tensor, Tensor, Tensor]
    """Of each query block the keys' blocks seen in part, and wholly; of each key block the
    queries'."""
    block_numbers: tuple[Tensor, Tensor, Tensor, Tensor]
    query_positions: Int64[Tensor, " query"]
    key_positions: Int64[Tensor, " key"]
    key_ends: Int64[Tensor, " key"]
    """`scope_end` of the keys."""
    is_empty: bool
    """Whether no query sees any key."""

    def tensors(self) -> tuple[Tensor, ...]:
        positions = (self.query_positions, self.key_positions, self.key_ends)
        return (*self.num_blocks, *self.block_numbers, *positions)

    def pin_memory(self) -> "FlexRectanglePlan":
        return self._of([tensor.pin_memory() for tensor in self.tensors()])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "FlexRectanglePlan":
        return self._of([tensor.to(device, non_blocking=non_blocking) for tensor in self.tensors()])

    def _of(self, tensors: list[Tensor]) -> "FlexRectanglePlan":
        """Return the plan with other tensors, in the order of `tensors`."""
        counts: Any = tuple(tensors[:4])
        numbers: Any = tuple(tensors[4:8])
        queries, keys, ends = tensors[8:]
        return replace(
            self,
            num_blocks=counts,
            block_numbers=numbers,
            query_positions=queries,
            key_positions=keys,
            key_ends=ends,
        )

    def laid(self) -> "FlexRectangle":
        from torch.nn.attention.flex_attention import BlockMask

        queries, keys, ends = self.query_positions, self.key_positions, self.key_ends

        def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            position = queries[query]
            return (keys[key] <= position) & (position < ends[key])

        lists: dict[str, Any] = {
            f"{name}_num_blocks": count[None, None]
            for name, count in zip(_NAMES, self.num_blocks, strict=True)
        }
        lists |= {
            f"{name}_indices": number[None, None]
            for name, number in zip(_NAMES, self.block_numbers, strict=True)
        }
        block_mask = BlockMask(
            seq_lengths=(len(queries), len(keys)),
            BLOCK_SIZE=(BLOCK_SIZE, BLOCK_SIZE),
            mask_mod=sees,
            **lists,
        )
        return FlexRectangle(block_mask)


def plan_flex_rectangle(
    scope_end: Int[np.ndarray, " seq"],
    queries: Int64[np.ndarray, " query"],
    keys: Int64[np.ndarray, " key"],
) -> FlexRectanglePlan:
    """Return the plan of a rectangle.

    Args:
        scope_end: of the pack.
        queries, keys: positions in the pack, ascending, at least one of each.
    """
    ends = scope_end[keys].astype(np.int64)
    partly, wholly = rectangle_tables(queries, keys, ends)
    tables = (partly, wholly, partly.T, wholly.T)
    counts: Any = tuple(torch.from_numpy(table.sum(axis=-1, dtype=np.int32)) for table in tables)
    numbers: Any = tuple(
        torch.from_numpy(np.argsort(~table, axis=-1, kind="stable").astype(np.int32))
        for table in tables
    )
    return FlexRectanglePlan(
        num_blocks=counts,
        block_numbers=numbers,
        query_positions=torch.from_numpy(queries),
        key_positions=torch.from_numpy(keys),
        key_ends=torch.from_numpy(ends),
        is_empty=not (partly.any() or wholly.any()),
    )


def rectangle_tables(
    queries: Int64[np.ndarray, " query"],
    keys: Int64[np.ndarray, " key"],
    key_ends: Int64[np.ndarray, " key"],
) -> tuple[Bool[np.ndarray, "query_block key_block"], Bool[np.ndarray, "query_block key_block"]]:
    """Return which blocks of queries may see which blocks of keys in part, and which do wholly.

    A block that is not full is seen in part at most: the kernels take its missing tokens for masked
    ones.
    """
    query_starts, key_starts = (np.arange(0, len(p), BLOCK_SIZE) for p in (queries, keys))
    first, last = _ends_of_blocks(queries, query_starts)
    first_key, last_key = _ends_of_blocks(keys, key_starts)
    last_seen = np.maximum.reduceat(key_ends, key_starts)
    first_unseen = np.minimum.reduceat(key_ends, key_starts)
    is_seen = (first_key[None] <= last[:, None]) & (last_seen[None] > first[:, None])
    wholly = (last_key[None] <= first[:, None]) & (first_unseen[None] > last[:, None])
    wholly &= (query_starts + BLOCK_SIZE <= len(queries))[:, None]
    wholly &= key_starts + BLOCK_SIZE <= len(keys)
    return is_seen & ~wholly, wholly


def _ends_of_blocks(
    positions: Int64[np.ndarray, " own"], starts: Int64[np.ndarray, " block"]
) -> tuple[Int64[np.ndarray, " block"], Int64[np.ndarray, " block"]]:
    """Return the first and the last position of each block."""
    return positions[starts], positions[np.minimum(starts + BLOCK_SIZE, len(positions)) - 1]


@dataclass(frozen=True, slots=True)
class FlexRectangle:
    """A rectangle on CUDA."""

    block_mask: "BlockMask"

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
        return flex_kernel()(query, key, value, **self._settings(query, key, scale))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float
    ) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            output, log_sum = self._with_log_sum(query, key, value, scale)
        wide = torch.promote_types(query.dtype, torch.float32)
        return output.to(wide), log_sum.to(wide)

    def backward(
        self,
        states: tuple[Tensor, Tensor, Tensor],
        whole: tuple[Tensor, Tensor],
        upstream: Tensor,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the attention once more, and go back through it and the merge.

        With weight w = exp(log_sum of these keys - log_sum of all), the attended values have the
        gradient w * upstream, the log sums w * upstream . (values of these keys - of all).
        """
        query, key, value = (state.detach().requires_grad_() for state in states)
        with torch.enable_grad():
            output, log_sum = self._with_log_sum(query, key, value, scale)
        weight = torch.exp(log_sum.detach() - whole[1])
        difference = output.detach().to(weight.dtype) - whole[0].to(weight.dtype)
        of_output = weight[..., None] * upstream
        of_log_sum = weight * (upstream * difference).sum(dim=-1)
        upstreams = of_output.to(output.dtype), of_log_sum.to(log_sum.dtype)
        of_query, of_key, of_value = torch.autograd.grad(
            (output, log_sum), (query, key, value), upstreams
        )
        return of_query, of_key, of_value

    def _with_log_sum(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float
    ) -> tuple[Tensor, Tensor]:
        from torch.nn.attention.flex_attention import AuxRequest

        settings = self._settings(query, key, scale) | {"return_aux": AuxRequest(lse=True)}
        kernel: Any = flex_kernel()
        output, others = kernel(query, key, value, **settings)
        return output, others.lse

    def _settings(self, query: Tensor, key: Tensor, scale: float) -> dict[str, Any]:
        return {
            "block_mask": self.block_mask,
            "scale": scale,
            "enable_gqa": query.shape[1] != key.shape[1],
            "kernel_options": dict(KERNEL_OPTIONS),
        }
