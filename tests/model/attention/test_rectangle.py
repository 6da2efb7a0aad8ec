"""Some of a pack's queries by some of its keys, on both back ends, equal to the dense rule."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import AuxOutput

from smolvlm.model.attention import flex_rectangle
from smolvlm.model.attention.flex import BLOCK_SIZE
from smolvlm.model.attention.flex_rectangle import plan_flex_rectangle, rectangle_tables
from smolvlm.model.attention.merging import merged
from smolvlm.model.attention.rectangle import plan_parts, plan_parts_rectangle
from smolvlm.model.attention.sdpa import DENSE_TOKENS
from tests.model.attention.dense_rule import (
    SCALE,
    dense,
    forward_and_gradients,
    packs,
    scope_end_of,
    states,
)

PLANS = {"parts": plan_parts_rectangle, "flex": plan_flex_rectangle}
TREE = (40, [(150, []), (3, []), (90, [(30, []), (20, [])])])
LARGE = scope_end_of([(5, []), TREE, (300, []), (7, []), (9, [(4, []), (4, [])])])
backends = pytest.mark.parametrize("backend", PLANS)


@pytest.fixture
def plain_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """`flex_attention` refuses gradients on a CPU: what its mask says, written out."""

    def attend(
        query, key, value, *, block_mask, scale, enable_gqa, kernel_options, return_aux=None
    ):
        assert enable_gqa
        rows, columns = (torch.arange(len_) for len_ in block_mask.seq_lengths)
        sees = block_mask.mask_mod(torch.tensor(0), torch.tensor(0), rows[:, None], columns[None])
        key, value = (states.repeat_interleave(2, dim=1) for states in (key, value))
        scores = (query @ key.transpose(2, 3) * scale).masked_fill(~sees, float("-inf"))
        log_sum = torch.logsumexp(scores, dim=-1)
        # A row that sees nothing has zeros, as torch's kernels give it.
        weights = torch.where(sees, torch.exp(scores - log_sum[..., None]), 0.0)
        output = weights @ value
        return (output, AuxOutput(lse=log_sum)) if return_aux else output

    monkeypatch.setattr(flex_rectangle, "flex_kernel", lambda: attend)


def cut(length: int, borders: list[int], num_ranks: int) -> list[np.ndarray]:
    """Deal the stretches between borders to ranks in turn."""
    stretches = np.split(np.arange(length), sorted(border % length for border in borders))
    owned = [stretches[rank::num_ranks] for rank in range(num_ranks)]
    positions = [np.concatenate(own) if own else np.zeros(0, int) for own in owned]
    return [own for own in positions if len(own)]


def gathered(backend: str, scope_end: np.ndarray, held: list[np.ndarray]):
    """Attention by every rank over all keys."""

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        everywhere = np.arange(len(scope_end))
        parts = [
            PLANS[backend](scope_end, own, everywhere)
            .laid()
            .attend(query[:, :, own], key, value, scale=SCALE)
            for own in held
        ]
        return torch.cat(parts, dim=2)[:, :, np.argsort(np.concatenate(held))]

    return attend


class Round(torch.autograd.Function):
    """Every rank's queries by each rank's keys, merged; and back through the same rectangles."""

    @staticmethod
    def forward(ctx, query, key, value, backend, scope_end, held):
        output, log_sum = torch.zeros_like(query), query.new_zeros(query.shape[:3])
        for own in held:
            whole = None
            for keys in held:
                plan = PLANS[backend](scope_end, own, keys)
                if not plan.is_empty:
                    seen = query[:, :, own], key[:, :, keys], value[:, :, keys]
                    visit = plan.laid().forward(*seen, scale=SCALE)
                    whole = visit if whole is None else merged(whole, visit)
            output[:, :, own], log_sum[:, :, own] = whole
        ctx.save_for_backward(query, key, value, output, log_sum)
        ctx.others = backend, scope_end, held
        return output

    @staticmethod
    def backward(ctx, upstream):
        query, key, value, output, log_sum = ctx.saved_tensors
        backend, scope_end, held = ctx.others
        gradients = [torch.zeros_like(state) for state in (query, key, value)]
        for own in held:
            for keys in held:
                plan = PLANS[backend](scope_end, own, keys)
                if not plan.is_empty:
                    parts = plan.laid().backward(
                        (query[:, :, own], key[:, :, keys], value[:, :, keys]),
                        (output[:, :, own], log_sum[:, :, own]),
                        upstream[:, :, own],
                        scale=SCALE,
                    )
                    for gradient, part, places in zip(
                        gradients, parts, (own, keys, keys), strict=True
                    ):
                        gradient[:, :, places] += part
        return *gradients, None, None, None


def assert_equal(attend, scope_end: np.ndarray, dtype: torch.dtype = torch.float64) -> None:
    inputs = states(len(scope_end), dtype=dtype)
    ours = forward_and_gradients(attend, inputs)
    theirs = forward_and_gradients(lambda q, k, v: dense(q, k, v, scope_end), inputs)
    tolerance = 1e-12 if dtype == torch.float64 else 3e-6
    for our, their in zip(ours, theirs, strict=True):
        assert (our - their).abs().max() < tolerance * max(1.0, float(their.detach().abs().max()))


@settings(max_examples=60, deadline=None)
@given(
    pack=packs,
    borders=st.lists(st.integers(0, 10**6), min_size=1, max_size=9),
    num_ranks=st.integers(1, 4),
)
def test_parts_of_any_cut_are_the_dense_rule(
    pack: list, borders: list[int], num_ranks: int
) -> None:
    scope_end = scope_end_of(pack)
    held = cut(len(scope_end), borders, num_ranks)
    assert_equal(gathered("parts", scope_end, held), scope_end)
    round_ = lambda *states: Round.apply(*states, "parts", scope_end, held)  # noqa: E731
    assert_equal(round_, scope_end)


@backends
@pytest.mark.parametrize("goes_round", [False, True], ids=["gathered", "round"])
@pytest.mark.parametrize("borders", [[200, 430], [64, 130, 300, 301, 500, 610]], ids=len)
@pytest.mark.usefixtures("plain_kernel")
def test_large_packs_are_the_dense_rule(backend: str, goes_round: bool, borders: list[int]) -> None:
    held = cut(len(LARGE), borders, 2)
    if goes_round:
        attend = lambda *states: Round.apply(*states, backend, LARGE, held)  # noqa: E731
    else:
        attend = gathered(backend, LARGE, held)
    assert_equal(attend, LARGE)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_torchs_flex_attention_gives_values_and_log_sums() -> None:
    """Forward; uncompiled it masks by the rule and does not look at the lists."""
    own, keys = np.arange(100, 360), np.arange(300)
    query, key, value = (state.detach() for state in states(len(LARGE), dtype=torch.float32))
    seen = query[:, :, own], key[:, :, keys], value[:, :, keys]
    found, expected = (
        plan(LARGE, own, keys).laid().forward(*seen, scale=SCALE)
        for plan in (plan_flex_rectangle, plan_parts_rectangle)
    )
    assert (expected[1] == float("-inf")).any()
    assert torch.equal(found[1] == float("-inf"), expected[1] == float("-inf"))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_parts_in_float32_and_bfloat16() -> None:
    held = cut(len(LARGE), [150, 380, 500], 2)
    assert_equal(gathered("parts", LARGE, held), LARGE, torch.float32)
    inputs = states(len(LARGE), dtype=torch.bfloat16)
    ours = forward_and_gradients(gathered("parts", LARGE, held), inputs)
    wide = [state.detach().double().requires_grad_() for state in inputs]
    theirs = forward_and_gradients(lambda q, k, v: dense(q, k, v, LARGE), tuple(wide))
    for our, their in zip(ours, theirs, strict=True):
        assert our.dtype == torch.bfloat16
        assert (our - their).norm() < 0.01 * their.norm()


def test_a_long_conversation_is_attended_without_a_mask() -> None:
    scope_end = np.full(8000, 8000)
    own = np.concatenate([np.arange(0, 2000), np.arange(6000, 8000)])
    parts = plan_parts(scope_end, own, np.arange(8000))
    assert [part.seen for part in parts] == ["causally", "wholly", "causally"]
    assert [(part.keys.start, part.keys.stop) for part in parts] == [
        (0, 2000),
        (0, 6000),
        (6000, 8000),
    ]


def test_masks_stay_small() -> None:
    everywhere = np.arange(len(LARGE))
    for own in cut(len(LARGE), [100, 240, 500], 2):
        masks = plan_parts_rectangle(LARGE, own, everywhere).laid().masks(torch.float32)
        sizes = [mask.shape for mask in masks if mask is not None]
        assert sizes
        assert all(max(size) <= DENSE_TOKENS for size in sizes)


def test_keys_that_nothing_sees_make_an_empty_rectangle() -> None:
    scope_end = scope_end_of([(200, []), (200, [])])
    first, second = np.arange(200), np.arange(200, 400)
    for plan in PLANS.values():
        assert plan(scope_end, second, first).is_empty
        assert plan(scope_end, first, second).is_empty
        assert not plan(scope_end, first, first).is_empty


@settings(max_examples=100, deadline=None)
@given(
    pack=st.lists(st.sampled_from([(200, []), TREE, (30, []), (129, [(127, []), (1, [])])])),
    borders=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
)
def test_block_tables_hide_nothing_and_show_nothing_else(pack: list, borders: list[int]) -> None:
    scope_end = scope_end_of([(100, []), *pack])
    length = len(scope_end)
    for own in cut(length, borders, 2):
        keys = np.arange(length)
        sees = (keys[None] <= own[:, None]) & (own[:, None] < scope_end[None])
        partly, wholly = rectangle_tables(own, keys, scope_end)
        for row, column in np.ndindex(partly.shape):
            block = sees[
                row * BLOCK_SIZE : (row + 1) * BLOCK_SIZE,
                column * BLOCK_SIZE : (column + 1) * BLOCK_SIZE,
            ]
            assert not (partly[row, column] and wholly[row, column])
            assert partly[row, column] or wholly[row, column] or not block.any()
            assert not wholly[row, column] or (block.all() and block.size == BLOCK_SIZE**2)


def test_plans_keep_their_tensors_when_they_move() -> None:
    for plan in PLANS.values():
        planned = plan(LARGE, np.arange(50, 250), np.arange(len(LARGE)))
        moved = planned.to("cpu")
        assert type(moved) is type(planned)
        assert len(moved.tensors()) == len(planned.tensors()) >= 3
        for ours, theirs in zip(moved.tensors(), planned.tensors(), strict=True):
            assert torch.equal(ours, theirs)
