"""A rectangle of attention on a CPU: some of a pack's queries by some of its keys.

In: `scope_end` of the pack, the positions of the queries and of the keys, each ascending. Out: a
plan of parts, each a stretch of queries by a stretch of keys that is seen wholly, causally, or
under a small mask; parts that share queries are merged by the log of their summed exponentials.
Parts are cut along the blocks of `sdpa.py`, so a mask has at most `DENSE_TOKENS` queries and keys.
torch's SDPA gives no log of its sums, so its CPU kernel is called by name
(`_scaled_dot_product_flash_attention_for_cpu`; tests/model/attention/test_rectangle.py fails where
it changes).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

from smolvlm.model.attention.merging import merged
from smolvlm.model.attention.sdpa import is_plain_causal, plan_blocks

_kernel: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_kernel_backward: Any = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A stretch of queries by a stretch of keys, counted among those of the rectangle."""

    queries: slice
    keys: slice
    seen: Literal["wholly", "causally", "masked"]


def plan_parts(
    scope_end: Int[np.ndarray, " seq"],
    queries: Int64[np.ndarray, " query"],
    keys: Int64[np.ndarray, " key"],
) -> tuple[Part, ...]:
    """Return the parts of a rectangle that see anything.

    Args:
        scope_end: of the pack.
        queries, keys: positions in the pack, ascending. Each stretch of queries that follow one
            another is either among the keys whole, or not at all.
    """
    blocks = plan_blocks(scope_end)
    starts = np.cumsum([0, *(block.size for block in blocks)])

    def among_keys(start: int, end: int) -> slice:
        first, stop = np.searchsorted(keys, [start, end]).tolist()
        return slice(first, stop)

    parts: list[Part] = []
    for offset, first, last in _stretches(queries):
        number = int(np.searchsorted(starts, first, side="right")) - 1
        while number < len(blocks) and starts[number] < last:
            block, start = blocks[number], int(starts[number])
            begin, end = max(first, start), min(last, start + block.size)
            own = slice(offset + begin - first, offset + end - first)
            ancestors = [(int(starts[a]), int(starts[a + 1])) for a in block.ancestors]
            wholly = [among_keys(*ends) for ends in _joined(ancestors)]
            if is_plain_causal(scope_end, start, start + block.size):
                wholly.append(among_keys(start, begin))
                others = [Part(queries=own, keys=among_keys(begin, end), seen="causally")]
            else:
                others = [Part(queries=own, keys=among_keys(start, end), seen="masked")]
            parts += [Part(queries=own, keys=seen, seen="wholly") for seen in wholly]
            parts += others
            number += 1
    return tuple(part for part in parts if part.keys.stop > part.keys.start)


def _stretches(positions: Int64[np.ndarray, " own"]) -> Iterator[tuple[int, int, int]]:
    """Yield (place among the positions, first position, position behind the last) of each stretch
    that has no gap."""
    cuts = np.flatnonzero(np.diff(positions) != 1) + 1
    for start, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(positions)], strict=True):
        if end > start:
            yield start, int(positions[start]), int(positions[end - 1]) + 1


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, those that touch as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


@dataclass(frozen=True, kw_only=True, slots=True)
class PartsPlan:
    """The parts of a rectangle, and what masks are made of."""

    parts: tuple[Part, ...]
    query_positions: Int64[Tensor, " query"]
    key_positions: Int64[Tensor, " key"]
    key_ends: Int64[Tensor, " key"]
    """`scope_end` of the keys."""

    @property
    def is_empty(self) -> bool:
        return not self.parts

    def tensors(self) -> tuple[Tensor, ...]:
        return self.query_positions, self.key_positions, self.key_ends

    def pin_memory(self) -> "PartsPlan":
        return self

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PartsPlan":
        positions, keys, ends = (
            tensor.to(device, non_blocking=non_blocking) for tensor in self.tensors()
        )
        return replace(self, query_positions=positions, key_positions=keys, key_ends=ends)

    def laid(self) -> "PartsRectangle":
        return PartsRectangle(self)


def plan_parts_rectangle(
    scope_end: Int[np.ndarray, " seq"],
    queries: Int64[np.ndarray, " query"],
    keys: Int64[np.ndarray, " key"],
) -> PartsPlan:
    """Return the plan of a rectangle; arguments as in `plan_parts`."""
    return PartsPlan(
        parts=plan_parts(scope_end, queries, keys),
        query_positions=torch.from_numpy(queries),
        key_positions=torch.from_numpy(keys),
        key_ends=torch.from_numpy(scope_end[keys].astype(np.int64)),
    )


@dataclass(slots=True)
class PartsRectangle:
    """A rectangle of one pack; masks are made once per dtype, not once per layer."""

    plan: PartsPlan
    _masks: dict[torch.dtype, list[Tensor | None]] = field(default_factory=dict)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, *, scale: float) -> Tensor:
        return cast(Tensor, _Attend.apply(query, key, value, self, scale))

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float
    ) -> tuple[Tensor, Tensor]:
        groups = query.shape[1] // key.shape[1]
        queries, keys, values = _grouped(query, key, value)
        wide = torch.promote_types(query.dtype, torch.float32)
        output = queries.new_zeros(queries.shape, dtype=wide)
        log_sum = queries.new_full(queries.shape[:3], float("-inf"), dtype=wide)
        is_begun: set[int] = set()
        for part, mask in zip(self.plan.parts, self.masks(query.dtype), strict=True):
            attended = _kernel(
                queries[:, :, part.queries],
                _expanded(keys[:, :, part.keys], groups),
                _expanded(values[:, :, part.keys], groups),
                0.0,
                part.seen == "causally",
                attn_mask=mask,
                scale=scale,
            )
            attended = attended[0].to(wide), _where_seen(attended[1].to(wide), mask)
            if part.queries.start in is_begun:
                before = output[:, :, part.queries], log_sum[:, :, part.queries]
                attended = merged(before, attended)
            is_begun.add(part.queries.start)
            output[:, :, part.queries], log_sum[:, :, part.queries] = attended
        return output.view(query.shape), log_sum.view(query.shape[:3])

    def backward(
        self,
        states: tuple[Tensor, Tensor, Tensor],
        whole: tuple[Tensor, Tensor],
        upstream: Tensor,
        *,
        scale: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        dtype, groups = states[0].dtype, states[0].shape[1] // states[1].shape[1]
        queries, keys, values = _grouped(*states)
        output, gradient = (part.to(dtype).view(queries.shape) for part in (whole[0], upstream))
        log_sum = whole[1].view(queries.shape[:3])
        wide = log_sum.dtype
        of_query, of_key, of_value = (
            torch.zeros_like(part, dtype=wide) for part in (queries, keys, values)
        )
        for part, mask in zip(self.plan.parts, self.masks(dtype), strict=True):
            gradients = _kernel_backward(
                gradient[:, :, part.queries],
                queries[:, :, part.queries],
                _expanded(keys[:, :, part.keys], groups),
                _expanded(values[:, :, part.keys], groups),
                output[:, :, part.queries],
                log_sum[:, :, part.queries],
                0.0,
                part.seen == "causally",
                attn_mask=mask,
                scale=scale,
            )
            of_query[:, :, part.queries] += gradients[0]
            of_key[:, :, part.keys] += gradients[1].sum(dim=1, keepdim=True)
            of_value[:, :, part.keys] += gradients[2].sum(dim=1, keepdim=True)
        shapes = (state.shape for state in states)
        query, key, value = (
            part.view(shape)
            for part, shape in zip((of_query, of_key, of_value), shapes, strict=True)
        )
        return query, key, value

    def masks(self, dtype: torch.dtype) -> list[Float[Tensor, "query key"] | None]:
        """Return each part's additive mask; None where it needs none."""
        if dtype not in self._masks:
            self._masks[dtype] = [
                self._mask(part, dtype) if part.seen == "masked" else None
                for part in self.plan.parts
            ]
        return self._masks[dtype]

    def _mask(self, part: Part, dtype: torch.dtype) -> Float[Tensor, "query key"]:
        position = self.plan.query_positions[part.queries, None]
        is_hidden = (self.plan.key_positions[part.keys] > position) | (
            position >= self.plan.key_ends[part.keys]
        )
        mask = torch.zeros(is_hidden.shape, dtype=dtype, device=is_hidden.device)
        return mask.masked_fill_(is_hidden, float("-inf"))


def _grouped(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the states with the heads that share a key head as an axis of their own: (kv heads,
    group or 1, tokens, head)."""
    _, heads, tokens, size = query.shape
    kv_heads = key.shape[1]
    grouped = query.reshape(kv_heads, heads // kv_heads, tokens, size)
    return grouped, key[0][:, None], value[0][:, None]


def _expanded(states: Tensor, groups: int) -> Tensor:
    """Return keys or values for each head of their group, not copied."""
    return states.expand(-1, groups, -1, -1)


def _where_seen(log_sum: Tensor, mask: Tensor | None) -> Tensor:
    """Return minus infinity for queries that see nothing, where the kernel returns 0."""
    if mask is None:
        return log_sum
    return log_sum.masked_fill((mask == float("-inf")).all(dim=1), float("-inf"))


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, rectangle: PartsRectangle, scale: float
    ) -> Tensor:
        output, log_sum = rectangle.forward(query, key, value, scale=scale)
        output = output.to(query.dtype)
        ctx.save_for_backward(query, key, value, output, log_sum)
        ctx.rectangle, ctx.scale = rectangle, scale
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Any, ...]:
        (upstream,) = grad_outputs
        query, key, value, *whole = ctx.saved_tensors
        gradients = ctx.rectangle.backward(
            (query, key, value), tuple(whole), upstream, scale=ctx.scale
        )
        return *(gradient.to(query.dtype) for gradient in gradients), None, None
