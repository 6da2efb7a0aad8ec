"""Attention over packs equals the dense rule, k <= q < scope_end[k], forward and backward."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from smolvlm.encoding.tree import visible
from smolvlm.model import attention
from smolvlm.model.attention import SCOPE_ATTENTION, BlockScope, FlexScope, flex_scope, make_scope, plan_blocks

HEADS, KEY_HEADS, HEAD_SIZE, SCALE = 4, 2, 8, 0.3

Node = tuple[int, list]
"""A tree: tokens of its own, and the trees that branch off after them."""

nodes = st.recursive(
    st.tuples(st.integers(1, 12), st.just([])),
    lambda children: st.tuples(st.integers(1, 9), st.lists(children, max_size=4)),
    max_leaves=8,
)
packs = st.lists(nodes, min_size=1, max_size=5)


def size_of(node: Node) -> int:
    return node[0] + sum(size_of(child) for child in node[1])


def scope_end_of(pack: list[Node]) -> np.ndarray:
    ends: list[int] = []

    def lay(node: Node) -> None:
        ends.extend([len(ends) + size_of(node)] * node[0])
        for child in node[1]:
            lay(child)

    for node in pack:
        lay(node)
    return np.array(ends)


def states(length: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(1, heads, length, HEAD_SIZE, dtype=dtype, generator=generator).requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    )
    return query, key, value


def dense(query: Tensor, key: Tensor, value: Tensor, scope_end: np.ndarray) -> Tensor:
    """The rule written out over all pairs, softmax by hand."""
    key, value = (states.repeat_interleave(HEADS // KEY_HEADS, dim=1) for states in (key, value))
    scores = query @ key.transpose(2, 3) * SCALE
    scores = scores.masked_fill(~torch.from_numpy(visible(scope_end)), float("-inf"))
    return scores.softmax(dim=-1) @ value


def forward_and_gradients(attend, inputs: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    output = attend(*inputs)
    upstream = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view(output.shape)
    return [output, *torch.autograd.grad((output * upstream).sum(), inputs)]


@settings(max_examples=60, deadline=None)
@given(pack=packs, dense_tokens=st.integers(1, 64))
@example(pack=[(3, [(2, []), (1, [])])], dense_tokens=1)
@example(pack=[(9, [(4, [(2, []), (30, []), (1, [])]), (1, [])]), (1, []), (40, [])], dense_tokens=4)
def test_blocks_equal_the_dense_rule(pack: list[Node], dense_tokens: int) -> None:
    scope_end = scope_end_of(pack)
    blocks = plan_blocks(scope_end, dense_tokens=dense_tokens)
    scope = BlockScope(blocks)
    inputs = states(len(scope_end))
    found = forward_and_gradients(lambda q, k, v: scope.attend(q, k, v, scale=SCALE, dropout=0.0), inputs)
    expected = forward_and_gradients(lambda q, k, v: dense(q, k, v, scope_end), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@settings(max_examples=100, deadline=None)
@given(pack=packs, dense_tokens=st.integers(1, 64))
def test_masks_stay_within_a_tree_and_the_limit(pack: list[Node], dense_tokens: int) -> None:
    """A mask's queries: at most the limit, or one unbranched run of a tree; its keys: the limit, or that tree."""
    scope_end = scope_end_of(pack)
    longest_run = int(np.diff(np.flatnonzero(np.diff(scope_end, prepend=-1, append=-1))).max())
    largest_tree = max(size_of(node) for node in pack)
    blocks = plan_blocks(scope_end, dense_tokens=dense_tokens)
    assert sum(block.size for block in blocks) == len(scope_end)
    for block in blocks:
        if block.mask is not None:
            assert block.mask.shape[0] == block.size <= max(dense_tokens, longest_run)
            assert block.mask.shape[1] <= max(dense_tokens, largest_tree)


@pytest.mark.parametrize("dense_tokens", [1, 16, 128])
def test_plain_conversations_above_the_limit_need_no_mask(dense_tokens: int) -> None:
    blocks = plan_blocks(np.repeat([1000, 3000, 3200], [1000, 2000, 200]), dense_tokens=dense_tokens)
    assert [(block.size, block.ancestors, block.mask) for block in blocks] == [
        (size, (), None) for size in (1000, 2000, 200)
    ]


def test_short_branches_of_a_tree_share_a_call() -> None:
    trunk, branches = 500, [10] * 12
    ends = np.concatenate([[620] * trunk, np.repeat(trunk + np.cumsum(branches), branches)])
    blocks = plan_blocks(ends, dense_tokens=128)
    assert [(block.size, block.ancestors) for block in blocks] == [(500, ()), (120, (0,))]
    assert blocks[0].mask is None
    assert blocks[1].mask is not None
    assert blocks[1].mask.shape == (120, 620)


def test_masks_are_made_once_for_all_layers() -> None:
    scope = BlockScope(plan_blocks(np.array([6, 6, 6, 5, 5, 6])))
    query, key, value = states(6)
    scope.attend(query, key, value, scale=SCALE, dropout=0.0)
    (first,) = scope._masks(query)
    scope.attend(query, key, value, scale=SCALE, dropout=0.0)
    assert scope._masks(query)[0] is first


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("seed", range(2))
def test_the_fused_kernels_mask_equals_the_dense_rule(seed: int) -> None:
    """Forward alone: torch's `flex_attention` has no backward on CPU, and uncompiled it warns of its slow path."""
    random = np.random.default_rng(seed)
    pack = [(int(own), [(int(size), []) for size in random.integers(1, 60, 3)]) for own in random.integers(1, 90, 3)]
    scope_end = scope_end_of([*pack, (150, [])])
    inputs = states(len(scope_end), dtype=torch.float32)
    with torch.no_grad():
        found = flex_scope(torch.from_numpy(scope_end)).attend(
            *(own.detach() for own in inputs), scale=SCALE, dropout=0.0
        )
        expected = dense(*(own.double() for own in inputs), scope_end)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_the_fused_kernel_refuses_dropout() -> None:
    with pytest.raises(ValueError, match="set attention_dropout to 0"):
        FlexScope(None).attend(*states(4), scale=SCALE, dropout=0.1)


def test_the_device_of_the_scopes_chooses_the_back_end(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_scope(torch.tensor([2, 2])), BlockScope)
    monkeypatch.setattr(attention, "flex_scope", lambda ends: ("fused", ends))
    ends = SimpleNamespace(device=SimpleNamespace(type="cuda"))
    assert make_scope(ends) == ("fused", ends)


class Layer(nn.Module):
    """What transformers' functions read of the layer that calls them."""

    is_causal = True
    num_key_value_groups = HEADS // KEY_HEADS


@pytest.mark.parametrize("has_mask", [False, True])
def test_without_a_scope_it_is_transformers_own_attention(has_mask: bool) -> None:
    query, key, value = states(7)
    mask = torch.ones(7, 7, dtype=torch.bool).tril()[None, None] if has_mask else None
    found, _ = ALL_ATTENTION_FUNCTIONS[SCOPE_ATTENTION](Layer(), query, key, value, mask, scaling=SCALE)
    expected, _ = sdpa_attention_forward(Layer(), query, key, value, mask, scaling=SCALE)
    assert torch.equal(found, expected)


def test_with_a_scope_it_returns_what_transformers_expects() -> None:
    scope_end = np.array([6, 6, 6, 5, 5, 6])
    query, key, value = states(6)
    scope = BlockScope(plan_blocks(scope_end))
    found, weights = ALL_ATTENTION_FUNCTIONS[SCOPE_ATTENTION](
        Layer(), query, key, value, None, scaling=SCALE, scope=scope
    )
    assert weights is None
    torch.testing.assert_close(found, dense(query, key, value, scope_end).transpose(1, 2), rtol=0, atol=1e-12)
