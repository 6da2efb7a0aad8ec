"""Attention by matrix products equals torch's SDPA for every shape of heads, rows and masks; its
errors in bfloat16 are near SDPA's, in both passes, also where scores are large."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from smolvlm.model.attention.products import attend_by_products
from smolvlm.model.cpu_choices import current_choices, using_choices

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def states_of(
    heads: int, key_heads: int, rows: int, keys: int, *, width: int = 8, batch: int = 1
) -> list[Tensor]:
    """Queries, keys, values in float64, laid out as transformers lays them out, and the gradient
    that arrives."""
    generator = torch.Generator().manual_seed(heads * rows + keys)
    shapes = [(heads, rows), (key_heads, keys), (key_heads, keys), (heads, rows)]
    return [
        torch.randn(
            batch, length, count, width, generator=generator, dtype=torch.float64
        ).transpose(1, 2)
        for count, length in shapes
    ]


def passes(attend: Attend, states: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return what is attended, and the gradients of queries, keys and values."""
    *inputs, upstream = (value.to(dtype) for value in states)
    inputs = [value.requires_grad_() for value in inputs]
    attended = attend(*inputs)
    return [attended.detach(), *torch.autograd.grad(attended, inputs, upstream)]


def error(found: Tensor, exact: Tensor) -> float:
    return ((found.double() - exact).norm() / exact.norm()).item()


@settings(max_examples=60, deadline=None)
@given(
    group=st.integers(1, 3),
    key_heads=st.integers(1, 3),
    rows=st.integers(1, 40),
    more_keys=st.integers(0, 30),
    kind=st.sampled_from(["full", "causal", "masked"]),
    block=st.sampled_from([1, 6, 384]),
    at_once=st.sampled_from([1, 300, 2**20]),
    batch=st.integers(1, 2),
)
def test_every_shape_is_sdpas_in_float32(
    group: int,
    key_heads: int,
    rows: int,
    more_keys: int,
    kind: str,
    block: int,
    at_once: int,
    batch: int,
) -> None:
    keys = rows if kind == "causal" else rows + more_keys
    states = states_of(group * key_heads, key_heads, rows, keys, batch=batch)
    mask = None
    if kind == "masked":  # branches of a tree: the trunk, and their own earlier tokens
        hidden = torch.ones(rows, keys, dtype=torch.bool).triu(keys - rows + 1)
        mask = torch.zeros(rows, keys).masked_fill(hidden, float("-inf"))
    is_causal = kind == "causal"
    chosen = replace(current_choices(), float32_scores=at_once, float32_rows=block)
    with using_choices(chosen):

        def ours(*inputs: Tensor) -> Tensor:
            return attend_by_products(*inputs, mask=mask, is_causal=is_causal)

        found = passes(ours, states, torch.float32)

    def stock(*inputs: Tensor) -> Tensor:
        exact_mask = None if mask is None else mask.double()
        return scaled_dot_product_attention(
            *inputs, attn_mask=exact_mask, is_causal=is_causal, enable_gqa=True
        )

    for part, exact in zip(found, passes(stock, states, torch.float64), strict=True):
        torch.testing.assert_close(part.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("rows", [64, 300, 700])
@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_errors_in_bfloat16_are_near_those_of_sdpa(is_causal: bool, rows: int, gain: float) -> None:
    states = states_of(6, 2, rows, rows, width=64)
    states[0] *= gain

    def ours(*inputs: Tensor) -> Tensor:
        return attend_by_products(*inputs, is_causal=is_causal)

    def stock(*inputs: Tensor) -> Tensor:
        return scaled_dot_product_attention(*inputs, is_causal=is_causal, enable_gqa=True)

    rounded = [value.bfloat16().double() for value in states]
    exact = passes(stock, rounded, torch.float64)
    found, expected = (passes(way, states, torch.bfloat16) for way in (ours, stock))
    errors = [(error(a, c), error(b, c)) for a, b, c in zip(found, expected, exact, strict=True)]
    (forward, stock_forward), *backward = errors
    assert forward < 1.5 * stock_forward  # two roundings of the shares for one
    # Half as much again at most, with small scores; less than SDPA's with large ones.
    assert all(own < 1.6 * of_sdpa for own, of_sdpa in backward)


@pytest.mark.parametrize("is_causal", [False, True])
def test_large_scores_are_not_rounded_as_they_are(is_causal: bool) -> None:
    """Rounding them alone makes errors many times as large; so does a shift by the largest of all
    keys where that one is hidden."""
    states = states_of(2, 2, 256, 256, width=64)
    states[0] *= 8
    hidden = torch.ones(256, 256, dtype=torch.bool).triu(1) & is_causal

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = (query @ key.mT) * 0.125
        return torch.softmax(scores.masked_fill(hidden, float("-inf")), -1) @ value

    def ours(*inputs: Tensor) -> Tensor:
        return attend_by_products(*inputs, is_causal=is_causal)

    rounded = [value.bfloat16().double() for value in states]
    exact = passes(plain, rounded, torch.float64)
    found, expected = (passes(way, states, torch.bfloat16) for way in (ours, plain))
    for own, of_plain, part in zip(found, expected, exact, strict=True):
        assert error(own, part) < 0.35 * error(of_plain, part)


def test_it_is_sdpas_under_autocast_and_in_the_type_that_came_in() -> None:
    query, key, value, _ = (part.bfloat16() for part in states_of(2, 2, 9, 9))
    with torch.autocast("cpu", torch.bfloat16):
        attended = attend_by_products(query, key, value)
    assert attended.dtype == torch.bfloat16
    torch.testing.assert_close(
        attended, scaled_dot_product_attention(query, key, value), rtol=2e-2, atol=2e-2
    )
