"""Attention on a CPU by matrix products, scores made again in the backward pass.

In: queries, keys and values. Out: what torch's SDPA returns for them. torch's fused attention
multiplies bfloat16 at float32's rate where the CPU has products of bfloat16 but no tiles for them
(AVX512-BF16 without AMX), and float32 at half the rate that a CPU of AMD's reaches in oneDNN
(`onednn.py`). Plain products reach the full rate. Scores are computed for a block of queries at a
time, so that they stay in the caches, and bfloat16 ones are rounded before the softmax, which
computes in float32. Heads that share their keys are one product with as many more
rows. Nothing is kept for the backward pass but the inputs.

With bfloat16, rounded scores alone would make larger errors than SDPA's, whose scores are float32:
a score of 16 is off by up to 3 %. A softmax does not change where all scores of a row are moved by
the same number, and what weighs in it are the largest. So each row's scores are computed twice:
rounded, to find the largest, and then within the product moved by it, so that those which weigh are
small when they are rounded. The backward pass finds the largest kept, one number a row. And the
forward pass divides by what the rounded shares add up to. Errors beside SDPA's, and the price:
`python -m benchmarks.attention`.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from smolvlm.model.cpu_choices import current_choices
from smolvlm.model.onednn import product

_softmax_backward = torch._softmax_backward_data  # pyright: ignore[reportPrivateImportUsage]

BF16_ROWS = 384
"""Rows of bfloat16 scores that are computed at once under a causal mask: fewer leave out more of
what nobody sees, more make larger products. Which number is best differs between lengths on one CPU
(`python -m benchmarks.cpu_constants --only rows`)."""
LARGEST_SCORE = 1.0
"""Of a row of bfloat16 scores once they are moved: 1 had the smallest errors of 0, 1 and 2, since a
row of many like scores has most of its weight below the largest."""


def attend_by_products(
    query: Float[Tensor, "batch heads query head"],
    key: Float[Tensor, "batch key_heads key head"],
    value: Float[Tensor, "batch key_heads key head"],
    *,
    scale: float | None = None,
    mask: Float[Tensor, "query key"] | None = None,
    is_causal: bool = False,
) -> Float[Tensor, "batch heads query head"]:
    """Return softmax(query key^T scale + mask) value.

    Args:
        query: each of its rows must see a key. All three are bfloat16 or float32.
        key, value: each head of them belongs to heads / key_heads consecutive heads of the queries.
        scale: None is 1 / sqrt(head).
        mask: added to the scores of all heads; gets no gradient.
        is_causal: query q sees the keys up to q; not together with a mask.
    """
    if scale is None:
        scale = query.shape[-1] ** -0.5
    with torch.autocast(query.device.type, enabled=False):
        return _Products.apply(query, key, value, scale, mask, is_causal)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] # noqa: PLR0913 - its own arguments
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        mask: Tensor | None,
        is_causal: bool,
    ) -> Tensor:
        blocks = _Blocks(query, key, value, scale=scale, mask=mask, is_causal=is_causal)
        attended = torch.empty_like(blocks.query)
        shifts = None if query.dtype == torch.float32 else torch.empty_like(blocks.query[..., :1])
        for heads in blocks.heads():
            values = _Values(blocks.value[heads])
            for rows, seen in blocks.rows():
                shift = None
                if shifts is not None:
                    shift = blocks.shift(heads, rows, seen)
                    shifts[heads, :, rows] = _unfolded(shift, blocks.group)
                shares = blocks.shares(heads, rows, seen, shift)
                attended[heads, :, rows] = _unfolded(values.mean(shares, seen), blocks.group)
        ctx.save_for_backward(query, key, value, mask, shifts)
        ctx.scale, ctx.is_causal = scale, is_causal
        return attended.view(query.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        query, key, value, mask, shifts = ctx.saved_tensors
        blocks = _Blocks(query, key, value, scale=ctx.scale, mask=mask, is_causal=ctx.is_causal)
        upstream = upstream.reshape(blocks.query.shape)
        by_query = torch.empty_like(upstream)
        by_key, by_value = torch.empty_like(blocks.key), torch.empty_like(blocks.value)
        for heads in blocks.heads():
            keys, values = blocks.key[heads], blocks.value[heads]
            sums = _KeySums(by_key[heads], by_value[heads], is_whole=blocks.is_one_block)
            for rows, seen in blocks.rows():
                shift = None if shifts is None else _folded(shifts[heads, :, rows])
                shares = blocks.shares(heads, rows, seen, shift)
                gradient = _folded(upstream[heads, :, rows])
                by_shares = _product(gradient, values[:, :seen].mT)
                by_scores = _softmax_backward(by_shares, shares, -1, shares.dtype)
                product = _scaled_product(by_scores, keys[:, :seen], ctx.scale)
                by_query[heads, :, rows] = _unfolded(product, blocks.group)
                queries = _folded(blocks.query[heads, :, rows])
                sums.add(
                    _scaled_product(by_scores.mT, queries, ctx.scale),
                    _product(shares.mT, gradient),
                )
            sums.write()
        by_keys = by_key.view(key.shape), by_value.view(value.shape)
        return by_query.view(query.shape), *by_keys, None, None, None


class _Blocks:
    """Queries, keys and values by head of the keys, and the blocks that scores are computed in."""

    def __init__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        scale: float,
        mask: Tensor | None,
        is_causal: bool,
    ) -> None:
        # Copies where heads lie beside each other: rows that are far apart share few cache lines.
        self.key, self.value = (states.flatten(0, 1).contiguous() for states in (key, value))
        self.group = query.shape[1] // key.shape[1]
        self.query = query.contiguous().view(len(self.key), self.group, *query.shape[2:])
        self._scale, self._mask, self._is_causal = scale, mask, is_causal
        self._num_rows, self._num_keys = query.shape[2], key.shape[2]
        # A product has those of one head and a row at least.
        choices = current_choices()
        self._at_once = choices.scores_at_once(query.dtype)
        causal_rows = BF16_ROWS if query.dtype == torch.bfloat16 else choices.float32_rows
        most = causal_rows if is_causal else max(self._at_once // self._num_keys, 1)
        self._size = max(1, min(most // self.group, self._num_rows))
        self._hidden: dict[int, Tensor] = {}

    @property
    def is_one_block(self) -> bool:
        return self._size >= self._num_rows

    def heads(self) -> Iterator[slice]:
        """Yield the heads of keys that are computed together."""
        scores = self.group * self._size * self._num_keys
        step = max(1, self._at_once // scores)
        for begin in range(0, len(self.key), step):
            yield slice(begin, begin + step)

    def rows(self) -> Iterator[tuple[slice, int]]:
        """Yield (rows of queries, how many keys they see at most)."""
        for begin in range(0, self._num_rows, self._size):
            end = min(begin + self._size, self._num_rows)
            yield slice(begin, end), end if self._is_causal else self._num_keys

    def shift(self, heads: slice, rows: slice, seen: int) -> Tensor:
        """Return (head, group * row, 1): what bfloat16 scores are moved by before they are rounded.

        Each row's largest becomes `LARGEST_SCORE`.
        """
        scores = _scaled_product(*self._factors(heads, rows, seen), self._scale)
        self._hide(scores, rows)
        return LARGEST_SCORE - scores.amax(-1, keepdim=True)

    def shares(self, heads: slice, rows: slice, seen: int, shift: Tensor | None) -> Tensor:
        """Return (head, group * row, seen): each value's share in what the rows see.

        Args:
            heads, rows, seen: the block.
            shift: added to the scores of a row, which changes no share but for rounding.
        """
        queries, keys = self._factors(heads, rows, seen)
        if shift is None:
            scores = _scaled_product(queries, keys, self._scale)
        else:
            scores = torch.baddbmm(shift, queries, keys, alpha=self._scale)
        self._hide(scores, rows)
        return torch.softmax(scores, -1)

    def _factors(self, heads: slice, rows: slice, seen: int) -> tuple[Tensor, Tensor]:
        return _folded(self.query[heads, :, rows]), self.key[heads, :seen].mT

    def _hide(self, scores: Tensor, rows: slice) -> None:
        """Add the mask to (head, group * row, seen) scores."""
        seen = scores.shape[-1]
        by_row = scores.view(len(scores), self.group, -1, seen)
        if self._mask is not None:
            by_row += self._mask[rows, :seen]
        elif self._is_causal:
            count = rows.stop - rows.start
            by_row[..., seen - count :].masked_fill_(self._later(count), float("-inf"))

    def _later(self, count: int) -> Tensor:
        """Return (count, count): whether a key is later than a query."""
        if count not in self._hidden:
            ones = torch.ones(count, count, dtype=torch.bool, device=self.query.device)
            self._hidden[count] = ones.triu(1)
        return self._hidden[count]


class _Values:
    """Some heads' values, with a column of ones beside them that counts the shares."""

    def __init__(self, values: Tensor) -> None:
        self._width = values.shape[-1]
        self._values = values
        if values.dtype == torch.float32:
            return
        # The count is of shares beyond one, so that its own rounding does not matter; more columns
        # of zeros, since a product takes less time with a whole number of 16.
        columns = values.new_zeros(*values.shape[:2], 16)
        columns[..., 0] = 1
        self._values = torch.cat([values, columns], -1)
        self._minus_one = values.new_zeros(self._width + 16)
        self._minus_one[self._width] = -1

    def mean(self, shares: Tensor, seen: int) -> Tensor:
        """Return the first `seen` values' mean by (head, row, seen) shares of nearly any sum."""
        if shares.dtype == torch.float32:
            return _product(shares, self._values[:, :seen])
        sums = torch.baddbmm(self._minus_one, shares, self._values[:, :seen])
        return sums[..., : self._width] / (1 + sums[..., self._width :][..., :1].float())


class _KeySums:
    """Gradients of some heads' keys and values: sums over blocks of queries, in float32 where
    there are several."""

    def __init__(self, by_key: Tensor, by_value: Tensor, *, is_whole: bool) -> None:
        self._gradients = by_key, by_value
        self._sums = None if is_whole else tuple(map(_zeros, self._gradients))

    def add(self, by_key: Tensor, by_value: Tensor) -> None:
        """Add a block's gradients of the first keys and values."""
        for total, part in zip(self._sums or self._gradients, (by_key, by_value), strict=True):
            if self._sums is None:
                total.copy_(part)
            else:
                total[:, : part.shape[1]] += part

    def write(self) -> None:
        for gradient, total in zip(self._gradients, self._sums or (), strict=False):
            gradient.copy_(total)


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros_like(like, dtype=torch.float32)


def _folded(by_group: Tensor) -> Tensor:
    """Return (head, group * row, width) of (head, group, row, width)."""
    return by_group.flatten(1, 2)


def _unfolded(rows: Tensor, group: int) -> Tensor:
    """Return (head, group, row, width) of (head, group * row, width)."""
    return rows.view(len(rows), group, -1, rows.shape[-1])


def _product(left: Tensor, right: Tensor) -> Tensor:
    """Return left right of (head, row, inner) and (head, inner, column)."""
    if left.dtype != torch.float32:
        return torch.bmm(left, right)
    products = [product(*pair) for pair in zip(left, right, strict=True)]
    return products[0][None] if len(products) == 1 else torch.stack(products)


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """Return left right scale, in bfloat16 rounded once."""
    if left.dtype == torch.float32:
        return _product(left, right).mul_(scale)
    return torch.baddbmm(left.new_empty(()), left, right, beta=0, alpha=scale)
