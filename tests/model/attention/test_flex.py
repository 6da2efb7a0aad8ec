"""The block lists of `flex_attention`: those that torch makes from the rule itself, without a table
of all pairs."""

import inspect
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from smolvlm.datasets.encoding.tree import visible
from smolvlm.model.attention.flex import BLOCK_SIZE, FlexPlan, FlexScope, block_tables, plan_flex
from tests.model.attention.dense_rule import (
    SCALE,
    Node,
    dense,
    forward_and_gradients,
    packs,
    scope_end_of,
    states,
)

NAMES = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
TRANSPOSED = ("q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices")


def large_pack(seed: int) -> np.ndarray:
    """Trees and plain conversations of several blocks, some ending on a border and most not."""
    random = np.random.default_rng(seed)
    pack: list[Node] = [
        (int(size), [(int(own), []) for own in random.integers(1, 300, 4)])
        for size in (90, 300, 128)
    ]
    plain: list[Node] = [
        (int(size), []) for size in (*random.integers(1, 500, 3), BLOCK_SIZE, 2 * BLOCK_SIZE)
    ]
    return scope_end_of([*pack, *plain])


def flex_of(scope_end: np.ndarray) -> FlexScope:
    return plan_flex(scope_end).over(torch.from_numpy(scope_end))


@settings(max_examples=200, deadline=None)
@given(pack=packs, block_size=st.integers(2, 16))
@example(pack=[(4, []), (4, [])], block_size=4)
@example(pack=[(3, [(2, []), (1, [])])], block_size=2)
def test_tables_say_of_every_block_what_the_dense_rule_says(
    pack: list[Node], block_size: int
) -> None:
    scope_end = scope_end_of(pack)
    rule = visible(scope_end)
    partly, wholly = block_tables(scope_end, block_size=block_size)
    edges = range(0, len(scope_end), block_size)
    for row, query in enumerate(edges):
        for column, key in enumerate(edges):
            seen = rule[query : query + block_size, key : key + block_size]
            is_whole = seen.shape == (block_size, block_size) and bool(seen.all())
            assert wholly[row, column] == is_whole
            assert partly[row, column] == (bool(seen.any()) and not is_whole)


@pytest.mark.parametrize("seed", range(3))
def test_lists_equal_those_that_torch_makes_of_all_pairs(seed: int) -> None:
    ends = torch.from_numpy(large_pack(seed))
    found = flex_of(ends.numpy()).block_mask

    def sees(
        _batch: torch.Tensor, _head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        return (key <= query) & (query < ends[key])

    expected = create_block_mask(sees, None, None, len(ends), len(ends), device="cpu")
    assert found.seq_lengths == expected.seq_lengths
    assert found.BLOCK_SIZE == expected.BLOCK_SIZE
    for name in (*NAMES, *TRANSPOSED):
        ours, theirs = getattr(found, name), getattr(expected, name)
        assert ours.dtype == theirs.dtype == torch.int32, name
        assert ours.is_contiguous(), name
        assert torch.equal(ours, theirs), name
    assert int(found.full_kv_num_blocks.sum()) > 0, "blocks that need no mask are among them"


def test_the_backward_passs_lists_are_the_forward_passs_transposed() -> None:
    """As torch transposes them itself."""
    found = flex_of(large_pack(7)).block_mask
    rebuilt = BlockMask.from_kv_blocks(
        *(getattr(found, name) for name in NAMES),
        mask_mod=found.mask_mod,
        seq_lengths=found.seq_lengths,
    )
    for counts, numbers in (TRANSPOSED[:2], TRANSPOSED[2:]):
        assert torch.equal(getattr(found, counts), getattr(rebuilt, counts))
        for row, count in enumerate(getattr(found, counts)[0, 0].tolist()):
            ours, theirs = (getattr(mask, numbers)[0, 0, row, :count] for mask in (found, rebuilt))
            assert torch.equal(ours, theirs)


def test_a_plan_takes_no_memory_of_sequence_times_sequence() -> None:
    scope_end = np.repeat(np.arange(1, 65) * 1024, 1024)
    tracemalloc.start()
    plan = plan_flex(scope_end)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 512**2 < len(scope_end) ** 2 / 250
    assert sum(tensor.nbytes for tensor in plan.tensors()) < 4.1 * 4 * 512**2


def test_a_moved_plan_is_the_same_plan() -> None:
    plan = plan_flex(large_pack(1))
    moved = plan.to("cpu", non_blocking=True)
    assert isinstance(moved, FlexPlan)
    assert all(
        torch.equal(ours, theirs)
        for ours, theirs in zip(moved.tensors(), plan.tensors(), strict=True)
    )
    assert all(tensor.device.type == "meta" for tensor in plan.to("meta").tensors())


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("seed", range(2))
def test_forward_equals_the_dense_rule(seed: int) -> None:
    """Uncompiled it warns of its slow path; it masks by the rule and does not look at the lists."""
    scope_end = large_pack(seed)[:600].clip(max=600)
    inputs = states(len(scope_end), dtype=torch.float32)
    with torch.no_grad():
        found = flex_of(scope_end).attend(
            *(own.detach() for own in inputs), scale=SCALE, dropout=0.0
        )
        expected = dense(*(own.double() for own in inputs), scope_end)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-5)


def test_backward_equals_the_dense_rule() -> None:
    """`flex_attention` refuses gradients on a CPU; the operator behind it has a plain form that
    gives them."""
    from torch._higher_order_ops.flex_attention import flex_attention as operator

    scope_end = scope_end_of([(40, [(20, []), (70, [])]), (50, [])])
    block_mask = flex_of(scope_end).block_mask
    options = {"BACKEND": "TRITON"} if "BACKEND" in inspect.getsource(operator.__class__) else {}

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        def score(value: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
            return value

        return operator(query, key, value, score, block_mask.as_tuple(), SCALE, options)[0]

    query, key, value = states(len(scope_end))
    key, value = (own.detach().repeat_interleave(2, dim=1).requires_grad_() for own in (key, value))
    found = forward_and_gradients(attend, (query, key, value))
    halves = (query, key[:, ::2].detach().requires_grad_(), value[:, ::2].detach().requires_grad_())
    expected = forward_and_gradients(lambda q, k, v: dense(q, k, v, scope_end), halves)
    for ours, theirs, is_shared in zip(found, expected, (False, False, True, True), strict=True):
        summed = ours.view(1, -1, 2, *ours.shape[2:]).sum(dim=2) if is_shared else ours
        torch.testing.assert_close(summed, theirs, rtol=0, atol=1e-10)


def test_packs_of_any_length_make_three_graphs_at_most() -> None:
    """Whole graphs, or torch would raise; one for the first length, one for lengths that vary."""
    counter = CompileCounter()
    torch._dynamo.reset()
    kernel = torch.compile(flex_attention, dynamic=True, fullgraph=True, backend=counter)
    for seed in range(20):
        scope_end = large_pack(seed)[: 300 + 61 * seed]
        scope_end = scope_end.clip(max=len(scope_end))
        query, key, value = (own.detach() for own in states(len(scope_end), dtype=torch.float32))
        block_mask = flex_of(scope_end).block_mask
        kernel(query, key, value, block_mask=block_mask, scale=SCALE, enable_gqa=True)
    torch._dynamo.reset()
    assert 1 <= counter.frame_count <= 3


def test_the_fused_kernel_refuses_dropout() -> None:
    with pytest.raises(ValueError, match="set attention_dropout to 0"):
        FlexScope(None).attend(*states(4), scale=SCALE, dropout=0.1)
