"""What a tape notes: memory as it comes and goes, FLOPs and bytes of each operation."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from smolvlm.plan.trace import LARGE_BYTES, Tape, attention_flops


def test_what_is_alive_at_its_peak_is_named_by_part() -> None:
    with FakeTensorMode():
        weight = torch.nn.Parameter(torch.empty(10, 10))
        inputs = torch.empty(5, 10)
        tape = Tape(vocabulary_size=10)
        tape.hold([weight], "weights")
        tape.hold([inputs], "inputs")
        with tape:
            (inputs @ weight).relu().sum().backward()
        assert weight.grad is not None
        trace = tape.trace([weight.grad])
    assert trace.peak["weights"] == 400
    assert trace.peak["inputs"] == 200
    # The product has as many columns as the vocabulary, and so its gradient.
    assert trace.peak["logits"] >= 200
    assert trace.peak_bytes >= 400 + 200 + 400 + 200


def test_a_tensor_that_is_freed_counts_no_more() -> None:
    with FakeTensorMode():
        tape = Tape(vocabulary_size=7)
        with tape:
            first = torch.empty(100)
            del first
            second = torch.empty(50)
        trace = tape.trace([])
        del second
    assert trace.peak_bytes == 400


def test_views_take_nothing() -> None:
    with FakeTensorMode():
        tape = Tape(vocabulary_size=7)
        with tape:
            kept = torch.empty(10, 10).view(100).view(20, 5).t()
        trace = tape.trace([])
        assert kept.shape == (5, 20)
    assert trace.peak_bytes == 400


def test_large_blocks_are_told_from_small_ones() -> None:
    with FakeTensorMode():
        tape = Tape(vocabulary_size=7)
        with tape:
            kept = [torch.zeros(LARGE_BYTES // 4 + 1), torch.zeros(25)]
        trace = tape.trace([])
        assert len(kept) == 2
    assert (trace.small_bytes, trace.large_bytes) == (100, LARGE_BYTES + 4)
    totals = trace.operations["plain", torch.float32]
    assert totals.fresh_bytes == LARGE_BYTES + 4


@pytest.mark.parametrize("is_causal", [False, True])
def test_attention_counts_half_where_it_is_causal(is_causal: bool) -> None:
    attend: Any = torch.nn.functional.scaled_dot_product_attention
    with FakeTensorMode():
        states = torch.empty(1, 2, 8, 4, requires_grad=True)
        tape = Tape(vocabulary_size=7)
        with tape:
            attend(states, states, states, is_causal=is_causal).sum().backward()
        trace = tape.trace([])
    forward = 4 * 2 * 8 * 8 * 4 / (2 if is_causal else 1)
    assert trace.operations["attention", torch.float32].flops == forward
    assert trace.operations["attention_backward", torch.float32].flops == 2.5 * forward


@pytest.mark.parametrize(("tokens", "share"), [(8, 1.0), (512, 1.0), (1024, 0.75), (2048, 0.625)])
def test_a_cpu_computes_whole_blocks_of_keys(tokens: int, share: float) -> None:
    with FakeTensorMode():
        states = torch.empty(1, 2, tokens, 4)
        whole = attention_flops(states, states, is_causal=False)
        causal = attention_flops(states, states, is_causal=True)
    assert whole.computed == whole.useful == 4 * 2 * tokens**2 * 4
    assert causal.useful == whole.useful / 2
    assert causal.computed == share * whole.computed


def test_kinds_of_operations() -> None:
    with FakeTensorMode():
        values = torch.empty(4, 6)
        tape = Tape(vocabulary_size=7)
        with tape:
            torch.nn.functional.gelu(values)
            torch.nn.functional.silu(values)
            values + values
            values @ values.t()
        operations = tape.trace([]).operations
    assert {kind: totals.count for (kind, _), totals in operations.items()} == {
        "gelu": 1,
        "special": 1,
        "plain": 1,
        "product": 1,
    }
    assert operations["product", torch.float32].flops == 2 * 4 * 6 * 4
    assert operations["plain", torch.float32].num_bytes == 3 * 96
