"""Attention over packs on CPU equals the dense rule, k <= q < scope_end[k], forward and
backward."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from smolvlm.model.attention.sdpa import Block, BlockScope, plan_blocks, plan_sdpa
from tests.model.attention.dense_rule import (
    SCALE,
    Node,
    dense,
    forward_and_gradients,
    packs,
    scope_end_of,
    size_of,
    states,
)


def scope_of(scope_end: np.ndarray) -> BlockScope:
    return plan_sdpa(scope_end).over(torch.from_numpy(scope_end))


def masks_of(blocks: Sequence[Block], scope_end: np.ndarray) -> list[Tensor | None]:
    return BlockScope(tuple(blocks), torch.from_numpy(scope_end)).masks(torch.float32)


@settings(max_examples=60, deadline=None)
@given(pack=packs, dense_tokens=st.integers(1, 64))
@example(pack=[(3, [(2, []), (1, [])])], dense_tokens=1)
@example(
    pack=[(9, [(4, [(2, []), (30, []), (1, [])]), (1, [])]), (1, []), (40, [])], dense_tokens=4
)
def test_blocks_equal_the_dense_rule(pack: list[Node], dense_tokens: int) -> None:
    scope_end = scope_end_of(pack)
    blocks = plan_blocks(scope_end, dense_tokens=dense_tokens)
    scope = BlockScope(blocks, torch.from_numpy(scope_end))
    inputs = states(len(scope_end))
    found = forward_and_gradients(
        lambda q, k, v: scope.attend(q, k, v, scale=SCALE, dropout=0.0), inputs
    )
    expected = forward_and_gradients(lambda q, k, v: dense(q, k, v, scope_end), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(pack=packs, dense_tokens=st.integers(1, 64))
def test_masks_stay_within_a_tree_and_the_limit(pack: list[Node], dense_tokens: int) -> None:
    """A mask's queries: at most the limit, or one unbranched run of a tree; its keys: the limit, or
    that tree."""
    scope_end = scope_end_of(pack)
    longest_run = int(np.diff(np.flatnonzero(np.diff(scope_end, prepend=-1, append=-1))).max())
    largest_tree = max(size_of(node) for node in pack)
    blocks = plan_blocks(scope_end, dense_tokens=dense_tokens)
    assert sum(block.size for block in blocks) == len(scope_end)
    for block, mask in zip(blocks, masks_of(blocks, scope_end), strict=True):
        if mask is not None:
            assert mask.shape[0] == block.size <= max(dense_tokens, longest_run)
            assert mask.shape[1] <= max(dense_tokens, largest_tree)


@pytest.mark.parametrize("dense_tokens", [1, 16, 128])
def test_plain_conversations_above_the_limit_need_no_mask(dense_tokens: int) -> None:
    blocks = plan_blocks(
        np.repeat([1000, 3000, 3200], [1000, 2000, 200]), dense_tokens=dense_tokens
    )
    assert blocks == (
        Block(start=0, size=1000),
        Block(start=1000, size=2000),
        Block(start=3000, size=200),
    )


def test_short_branches_of_a_tree_share_a_call() -> None:
    trunk, branches = 500, [10] * 12
    ends = np.concatenate([[620] * trunk, np.repeat(trunk + np.cumsum(branches), branches)])
    blocks = plan_blocks(ends, dense_tokens=128)
    assert [(block.size, block.ancestors) for block in blocks] == [(500, ()), (120, (0,))]
    trunk_mask, branch_mask = masks_of(blocks, ends)
    assert trunk_mask is None
    assert branch_mask is not None
    assert branch_mask.shape == (120, 620)


def test_masks_are_made_once_for_all_layers() -> None:
    scope = scope_of(np.array([6, 6, 6, 5, 5, 6]))
    query, key, value = states(6)
    scope.attend(query, key, value, scale=SCALE, dropout=0.0)
    (first,) = scope.masks(query.dtype)
    scope.attend(query, key, value, scale=SCALE, dropout=0.0)
    assert scope.masks(query.dtype)[0] is first


def test_a_plan_holds_nothing_that_has_to_be_moved() -> None:
    plan = plan_sdpa(np.array([6, 6, 6, 5, 5, 6]))
    assert plan.tensors() == ()
    assert plan.to("cpu") is plan.pin_memory() is plan


@pytest.mark.parametrize("scope_end", [[40] * 40, [4, 4, 4, 4, 9, 9, 9, 9, 9], [6, 6, 6, 5, 5, 6]])
def test_dropout_drops_keys_in_every_kind_of_block(scope_end: list[int]) -> None:
    """With values of one, attention without dropout gives one; what is kept is scaled up by 1 / (1
    - p)."""
    length = len(scope_end)
    scope = plan_sdpa(np.array(scope_end)).over(torch.tensor(scope_end))
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 64, length, 8, generator=generator) for _ in range(2))
    value = torch.ones(1, 64, length, 8)
    torch.manual_seed(0)
    kept = scope.attend(query, key, value, scale=None, dropout=0.0)
    torch.testing.assert_close(kept, value)
    dropped = scope.attend(query, key, value, scale=None, dropout=0.5)
    assert ((dropped - 1).abs() > 1e-3).float().mean() > 0.5
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.1)
    first = dropped[0, :, 0, 0]  # the first token sees itself alone: it is dropped or doubled
    assert set(first.round(decimals=4).tolist()) == {0.0, 2.0}
