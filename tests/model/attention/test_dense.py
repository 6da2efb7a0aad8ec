"""Attention goes the way that was chosen, and SDPA's wherever products do not apply."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from smolvlm.model.attention import dense
from smolvlm.model.attention.dense import MIN_FLOAT32_ROWS, attend, tile_attention
from smolvlm.model.cpu_choices import STOCK_CHOICES, CpuChoices, using_choices

ALL = CpuChoices(bf16_products=True, onednn_products=True)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What computed, call by call."""
    seen: list[str] = []
    for name in ("attend_by_products", "scaled_dot_product_attention", "sdpa_attention_forward"):

        def watched(name: str, of: Callable[..., Any], *args: object, **more: object) -> Any:
            seen.append(name)
            return of(*args, **more)

        monkeypatch.setattr(dense, name, partial(watched, name, getattr(dense, name)))
    return seen


@pytest.mark.parametrize(
    ("dtype", "rows", "dropout", "choices", "way"),
    [
        (torch.bfloat16, 4, 0.0, ALL, "attend_by_products"),
        (torch.bfloat16, 4, 0.5, ALL, "scaled_dot_product_attention"),
        (torch.bfloat16, 4, 0.0, STOCK_CHOICES, "scaled_dot_product_attention"),
        (torch.float32, MIN_FLOAT32_ROWS, 0.0, ALL, "attend_by_products"),
        (torch.float32, MIN_FLOAT32_ROWS - 1, 0.0, ALL, "scaled_dot_product_attention"),
        (torch.float32, MIN_FLOAT32_ROWS, 0.0, STOCK_CHOICES, "scaled_dot_product_attention"),
        (torch.float64, MIN_FLOAT32_ROWS, 0.0, ALL, "scaled_dot_product_attention"),
    ],
)
def test_the_way_follows_type_length_and_choice(
    dtype: torch.dtype, rows: int, dropout: float, choices: CpuChoices, way: str, ways: list[str]
) -> None:
    states = torch.randn(1, 2, rows, 8, dtype=dtype)
    with using_choices(choices):
        attend(states, states, states, dropout=dropout)
    assert ways == [way]


def test_a_tile_is_attended_to_alike_by_both_ways(ways: list[str]) -> None:
    states = torch.randn(2, 3, 16, 8, dtype=torch.bfloat16)
    found, module = [], nn.Module()
    module.is_causal = False  # as the tower's attention says
    for choices in (ALL, STOCK_CHOICES):
        with using_choices(choices):
            found.append(tile_attention(module, states, states, states, None, scaling=0.3)[0])
    assert ways == ["attend_by_products", "sdpa_attention_forward"]
    assert found[0].shape == found[1].shape == (2, 16, 3, 8)
    torch.testing.assert_close(*found, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("choices", [ALL, STOCK_CHOICES], ids=["products", "SDPA"])
@pytest.mark.parametrize("rows", [4, MIN_FLOAT32_ROWS])
def test_under_autocast_queries_in_float32_are_taken_beside_values_in_bfloat16(
    rows: int, choices: CpuChoices, ways: list[str]
) -> None:
    """As rotary positions leave them."""
    query, key, value = torch.randn(3, 1, 2, rows, 8)
    stock = nn.functional.scaled_dot_product_attention(query, key, value)
    with using_choices(choices), torch.autocast("cpu", torch.bfloat16):
        attended = attend(query, key, value.bfloat16())
    assert attended.dtype == torch.bfloat16
    assert ways == ["attend_by_products" if choices is ALL else "scaled_dot_product_attention"]
    torch.testing.assert_close(attended.float(), stock, rtol=2e-2, atol=2e-2)
