"""Attention over packs: query q sees key k <=> k <= q < scope_end[k], and nothing else is ever computed.

In: `scope_end` of a pack. Out: a `Scope` that every layer's attention asks. On CPU and MPS the pack is cut into blocks:
a plain conversation is one causal block; small neighbours and the branches of a tree are gathered until a block has
`DENSE_TOKENS` queries and attended under a small dense mask (one call for ten short branches costs less than ten
calls). No mask over the whole pack is built. On CUDA it is `flex_attention` with a `BlockMask` from the same rule.

The function is registered with transformers under `SCOPE_ATTENTION`; without a scope (generation, stock calls) it is
transformers' own SDPA attention.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface

SCOPE_ATTENTION = "smolvlm_scope"
DENSE_TOKENS = 128
"""Blocks are gathered up to so many queries: best of 32 to 1024 on two cores, see docs/results.md."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Consecutive queries that are attended in one call."""

    size: int
    ancestors: tuple[int, ...] = ()
    """Earlier blocks whose keys all these queries may see (a tree's trunk)."""
    mask: Bool[np.ndarray, "query key"] | None = None
    """Dense rule over (ancestors, own) keys; None is plain causal, without ancestors."""


def plan_blocks(scope_end: Int[np.ndarray, " seq"], *, dense_tokens: int = DENSE_TOKENS) -> list[Block]:
    """Cut a pack into blocks; single conversations stay whole, without a mask.

    A masked block has at most `dense_tokens` queries, or is one longer branch of a tree; its keys are its own and the
    trunk's. (Splitting a long branch would need its keys copied for every part: more memory than the mask.)
    """
    blocks: list[Block] = []
    gathered: list[tuple[int, int]] = []

    def flush() -> None:
        if gathered:
            start, end = gathered[0][0], gathered[-1][1]
            blocks.append(
                _dense(scope_end, start, end) if _needs_mask(scope_end, start, end) else Block(size=end - start)
            )
            gathered.clear()

    for start, end in _trees(scope_end):
        if gathered and end - gathered[0][0] > dense_tokens:
            flush()
        if end - start <= dense_tokens:
            gathered.append((start, end))
        elif _needs_mask(scope_end, start, end):
            flush()
            blocks += _tree_blocks(scope_end, start, end, first=len(blocks), dense_tokens=dense_tokens)
        else:
            flush()
            blocks.append(Block(size=end - start))
    flush()
    return blocks


def _trees(scope_end: Int[np.ndarray, " seq"]) -> list[tuple[int, int]]:
    """Return [start, end) of every tree: maximal stretches that see nothing before and are seen by nothing after."""
    reach = np.maximum.accumulate(scope_end)
    starts = np.concatenate([[0], 1 + np.flatnonzero(reach[:-1] <= np.arange(1, len(scope_end)))])
    return list(zip(starts.tolist(), [*starts[1:].tolist(), len(scope_end)], strict=True))


def _needs_mask(scope_end: Int[np.ndarray, " seq"], start: int, end: int) -> bool:
    return bool((scope_end[start:end] != end).any())


def _dense(scope_end: Int[np.ndarray, " seq"], start: int, end: int) -> Block:
    position = np.arange(start, end)
    mask = (position[None] <= position[:, None]) & (position[:, None] < scope_end[None, start:end])
    return Block(size=end - start, mask=mask)


def _tree_blocks(
    scope_end: Int[np.ndarray, " seq"], start: int, end: int, *, first: int, dense_tokens: int
) -> list[Block]:
    """Cut one large tree into runs of equal scope; consecutive leaves under the same ancestors are gathered."""
    cuts = np.concatenate([[start], start + 1 + np.flatnonzero(np.diff(scope_end[start:end])), [end]])
    runs = list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True))
    blocks: list[Block] = []
    inner: list[tuple[int, int]] = []  # (block number, scope end) of runs that later runs see
    gathered: list[tuple[int, int]] = []
    gathered_under: tuple[int, ...] = ()

    def flush() -> None:
        if not gathered:
            return
        own = np.arange(gathered[0][0], gathered[-1][1])
        mask = (own[None] <= own[:, None]) & (own[:, None] < scope_end[None, own])
        width = sum(blocks[number - first].size for number in gathered_under)
        full = np.concatenate([np.ones((len(own), width), bool), mask], axis=1)
        is_causal = not gathered_under and bool((full == np.tri(len(own), dtype=bool)).all())
        blocks.append(Block(size=len(own), ancestors=gathered_under, mask=None if is_causal else full))
        gathered.clear()

    for run_start, run_end in runs:
        is_leaf = scope_end[run_start] == run_end
        ancestors = tuple(number for number, reach in inner if reach > run_start)
        fits = not gathered or (ancestors == gathered_under and run_end - gathered[0][0] <= dense_tokens)
        if not (is_leaf and fits):
            flush()
            ancestors = tuple(number for number, reach in inner if reach > run_start)
        gathered.append((run_start, run_end))
        gathered_under = ancestors
        if not is_leaf:
            flush()
            inner.append((first + len(blocks) - 1, int(scope_end[run_start])))
    flush()
    return blocks


@dataclass(slots=True)
class BlockScope:
    """A pack's blocks; masks become additive once per dtype, not once per layer."""

    blocks: list[Block]
    _additive: dict[torch.dtype, list[Tensor | None]] = field(default_factory=dict)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, dropout: float) -> Tensor:
        sizes = [block.size for block in self.blocks]
        queries, keys, values = (states.split(sizes, dim=2) for states in (query, key, value))
        outputs = []
        for number, (block, mask) in enumerate(zip(self.blocks, self._masks(query), strict=True)):
            seen = (*block.ancestors, number)
            outputs.append(
                scaled_dot_product_attention(
                    queries[number],
                    torch.cat([keys[i] for i in seen], dim=2) if block.ancestors else keys[number],
                    torch.cat([values[i] for i in seen], dim=2) if block.ancestors else values[number],
                    attn_mask=mask,
                    is_causal=mask is None,
                    scale=scale,
                    dropout_p=dropout,
                    enable_gqa=query.shape[1] != key.shape[1],
                )
            )
        return torch.cat(outputs, dim=2)

    def _masks(self, like: Tensor) -> list[Tensor | None]:
        if like.dtype not in self._additive:
            self._additive[like.dtype] = [
                None
                if block.mask is None
                else torch.zeros(block.mask.shape, dtype=like.dtype, device=like.device).masked_fill_(
                    ~torch.from_numpy(block.mask).to(like.device), float("-inf")
                )
                for block in self.blocks
            ]
        return self._additive[like.dtype]


@dataclass(frozen=True, slots=True)
class FlexScope:
    """A pack on CUDA: one fused kernel that skips what the rule hides."""

    block_mask: Any

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, dropout: float) -> Tensor:
        if dropout:
            raise ValueError("flex_attention has no dropout; set attention_dropout to 0 in the text config")
        return _flex_attention()(
            query, key, value, block_mask=self.block_mask, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )


@cache
def _flex_attention() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True) if torch.cuda.is_available() else flex_attention


def flex_scope(scope_end: Int[Tensor, " seq"]) -> FlexScope:
    """Build the CUDA back end's block mask on the device of `scope_end`."""
    from torch.nn.attention.flex_attention import create_block_mask

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & (query < scope_end[key])

    length = len(scope_end)
    return FlexScope(create_block_mask(sees, None, None, length, length, device=str(scope_end.device)))


def make_scope(scope_end: Int[Tensor, " seq"]) -> Scope:
    """Choose the back end by the device that `scope_end` is on."""
    if scope_end.device.type == "cuda":
        return flex_scope(scope_end)
    return BlockScope(plan_blocks(scope_end.cpu().numpy()))


def scope_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    scope: Scope | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function transformers calls; (1, heads, seq, head) in, (1, seq, heads, head) out."""
    if scope is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs
        )
    return scope.attend(query, key, value, scale=scaling, dropout=dropout).transpose(1, 2).contiguous(), None


AttentionInterface.register(SCOPE_ATTENTION, scope_attention)
AttentionMaskInterface.register(SCOPE_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
