"""Attention over packs on CPU and MPS: torch's SDPA, block by block.

In: `scope_end`. Out: an `SdpaPlan`. A plain conversation is one causal block; small neighbours and
the branches of a tree are gathered until a block has `DENSE_TOKENS` queries and attended under a
small dense mask (one call for ten short branches costs less than ten calls). No mask over the whole
pack is built. Masks are made on the device, from the pack's own `scope_end`: the plan holds block
borders alone, and weighs next to nothing.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from smolvlm.model.attention.dense import attend

DENSE_TOKENS = 128
"""Blocks are gathered up to so many queries: best of 32 to 1024 on two cores, see
docs/results.md."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Consecutive queries that are attended in one call."""

    start: int
    size: int
    ancestors: tuple[int, ...] = ()
    """Earlier blocks whose keys all these queries may see (a tree's trunk)."""
    is_causal: bool = True
    """Whether it is plain causal, without ancestors, and needs no mask."""


def plan_blocks(
    scope_end: Int[np.ndarray, " seq"], *, dense_tokens: int = DENSE_TOKENS
) -> tuple[Block, ...]:
    """Cut a pack into blocks; single conversations stay whole, without a mask.

    A masked block has at most `dense_tokens` queries, or is one longer branch of a tree; its keys
    are its own and the trunk's. (Splitting a long branch would need its keys copied for every part:
    more memory than the mask.)
    """
    blocks: list[Block] = []
    gathered: list[tuple[int, int]] = []

    def flush() -> None:
        if gathered:
            blocks.append(_block(scope_end, gathered[0][0], gathered[-1][1]))
            gathered.clear()

    for start, end in _trees(scope_end):
        if gathered and end - gathered[0][0] > dense_tokens:
            flush()
        if end - start <= dense_tokens:
            gathered.append((start, end))
            continue
        flush()
        if is_plain_causal(scope_end, start, end):
            blocks.append(Block(start=start, size=end - start))
        else:
            blocks += _tree_blocks(
                scope_end, start, end, first=len(blocks), dense_tokens=dense_tokens
            )
    flush()
    return tuple(blocks)


def _trees(scope_end: Int[np.ndarray, " seq"]) -> list[tuple[int, int]]:
    """Return [start, end) of every tree: maximal stretches that see nothing before and are seen by
    nothing after."""
    reach = np.maximum.accumulate(scope_end)
    starts = np.concatenate([[0], 1 + np.flatnonzero(reach[:-1] <= np.arange(1, len(scope_end)))])
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(scope_end)], strict=True))


def is_plain_causal(scope_end: Int[np.ndarray, " seq"], start: int, end: int) -> bool:
    """Say whether all of these tokens are seen by all later ones among them."""
    return bool((scope_end[start:end] >= end).all())


def _block(
    scope_end: Int[np.ndarray, " seq"], start: int, end: int, ancestors: tuple[int, ...] = ()
) -> Block:
    is_causal = not ancestors and is_plain_causal(scope_end, start, end)
    return Block(start=start, size=end - start, ancestors=ancestors, is_causal=is_causal)


def _tree_blocks(
    scope_end: Int[np.ndarray, " seq"], start: int, end: int, *, first: int, dense_tokens: int
) -> list[Block]:
    """Cut one large tree into runs of equal scope; consecutive leaves under the same ancestors are
    gathered."""
    cuts = np.concatenate(
        [[start], start + 1 + np.flatnonzero(np.diff(scope_end[start:end])), [end]]
    )
    runs = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
    blocks: list[Block] = []
    inner: list[tuple[int, int]] = []  # (block number, scope end) of runs that later runs see
    gathered: list[tuple[int, int]] = []
    gathered_under: tuple[int, ...] = ()

    def flush() -> None:
        if gathered:
            blocks.append(_block(scope_end, gathered[0][0], gathered[-1][1], gathered_under))
            gathered.clear()

    for run_start, run_end in runs:
        is_leaf = scope_end[run_start] == run_end
        ancestors = tuple(number for number, reach in inner if reach > run_start)
        fits = not gathered or (
            ancestors == gathered_under and run_end - gathered[0][0] <= dense_tokens
        )
        if not (is_leaf and fits):
            flush()
        gathered.append((run_start, run_end))
        gathered_under = ancestors
        if not is_leaf:
            flush()
            inner.append((first + len(blocks) - 1, int(scope_end[run_start])))
    flush()
    return blocks


@dataclass(frozen=True, slots=True)
class SdpaPlan:
    """A pack's blocks, in order: numbers alone, with nothing to be moved to a device."""

    blocks: tuple[Block, ...]

    def tensors(self) -> tuple[Tensor, ...]:
        return ()

    def pin_memory(self) -> "SdpaPlan":
        return self

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "SdpaPlan":  # noqa: ARG002 - the protocol's
        return self

    def over(self, scope_end: Int[Tensor, " seq"]) -> "BlockScope":
        return BlockScope(self.blocks, scope_end)


def plan_sdpa(scope_end: Int[np.ndarray, " seq"], *, dense_tokens: int = DENSE_TOKENS) -> SdpaPlan:
    """Return the blocks of a pack; arguments as of `plan_blocks`."""
    return SdpaPlan(plan_blocks(scope_end, dense_tokens=dense_tokens))


@dataclass(slots=True)
class BlockScope:
    """A pack's blocks over its tensors; masks are made once per dtype, not once per layer."""

    blocks: tuple[Block, ...]
    scope_end: Int[Tensor, " seq"]
    _masks: dict[torch.dtype, list[Tensor | None]] = field(default_factory=dict)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, dropout: float
    ) -> Tensor:
        sizes = [block.size for block in self.blocks]
        queries, keys, values = (states.split(sizes, dim=2) for states in (query, key, value))
        outputs = []
        for number, (block, mask) in enumerate(
            zip(self.blocks, self.masks(query.dtype), strict=True)
        ):
            seen = (*block.ancestors, number)
            outputs.append(
                attend(
                    queries[number],
                    torch.cat([keys[i] for i in seen], dim=2) if block.ancestors else keys[number],
                    torch.cat([values[i] for i in seen], dim=2)
                    if block.ancestors
                    else values[number],
                    mask=mask,
                    is_causal=mask is None,
                    scale=scale,
                    dropout=dropout,
                )
            )
        return torch.cat(outputs, dim=2)

    def masks(self, dtype: torch.dtype) -> list[Float[Tensor, "query key"] | None]:
        """Return each block's additive mask over what it sees; None where it is plain causal."""
        if dtype not in self._masks:
            self._masks[dtype] = [
                None if block.is_causal else self._mask(block, dtype) for block in self.blocks
            ]
        return self._masks[dtype]

    def _mask(self, block: Block, dtype: torch.dtype) -> Float[Tensor, "query key"]:
        ends = self.scope_end[block.start : block.start + block.size]
        position = torch.arange(block.start, block.start + block.size, device=ends.device)
        is_hidden = (position[None] > position[:, None]) | (position[:, None] >= ends[None])
        shared = sum(self.blocks[number].size for number in block.ancestors)
        mask = torch.zeros(block.size, shared + block.size, dtype=dtype, device=ends.device)
        mask[:, shared:].masked_fill_(is_hidden, float("-inf"))
        return mask
