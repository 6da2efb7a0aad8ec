"""What transformers calls, and which back end answers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from smolvlm.model.attention.flex import plan_flex
from smolvlm.model.attention.rule import (
    SCOPE_ATTENTION,
    attention_planner,
    make_scope,
    scope_attention,
)
from smolvlm.model.attention.sdpa import BlockScope, plan_sdpa
from tests.model.attention.dense_rule import HEADS, KEY_HEADS, SCALE, dense, states


@pytest.mark.parametrize(
    ("device", "planner"), [("cuda", plan_flex), ("cpu", plan_sdpa), ("mps", plan_sdpa)]
)
def test_the_kind_of_device_chooses_the_back_end(device: str, planner: object) -> None:
    assert attention_planner(device) is planner


def test_a_plan_of_the_loader_is_used_as_it_is() -> None:
    """A plan in which all see each other, though the scopes say otherwise, shows whose word
    counts."""
    scope_end = torch.tensor([1, 2, 3])
    planned = plan_sdpa(np.array([3, 3, 3]))
    scope = make_scope(scope_end, planned)
    assert isinstance(scope, BlockScope)
    assert scope.blocks == planned.blocks != make_scope(scope_end).blocks  # type: ignore[attr-defined]


class Layer(nn.Module):
    """What transformers' functions read of the layer that calls them."""

    is_causal = True
    num_key_value_groups = HEADS // KEY_HEADS


@pytest.mark.parametrize("has_mask", [False, True])
def test_without_a_scope_it_is_transformers_own_attention(has_mask: bool) -> None:
    query, key, value = states(7)
    mask = torch.ones(7, 7, dtype=torch.bool).tril()[None, None] if has_mask else None
    found, _ = ALL_ATTENTION_FUNCTIONS[SCOPE_ATTENTION](
        Layer(), query, key, value, mask, scaling=SCALE
    )
    expected, _ = sdpa_attention_forward(Layer(), query, key, value, mask, scaling=SCALE)
    assert torch.equal(found, expected)


def test_with_a_scope_it_returns_what_transformers_expects() -> None:
    scope_end = np.array([6, 6, 6, 5, 5, 6])
    query, key, value = states(6)
    scope = make_scope(torch.from_numpy(scope_end))
    found, weights = ALL_ATTENTION_FUNCTIONS[SCOPE_ATTENTION](
        Layer(), query, key, value, None, scaling=SCALE, scope=scope
    )
    assert weights is None
    torch.testing.assert_close(
        found, dense(query, key, value, scope_end).transpose(1, 2), rtol=0, atol=1e-12
    )


def test_a_layers_dropout_reaches_the_scope() -> None:
    scope = make_scope(torch.tensor([6] * 6))
    query, key, value = states(6)
    attend = ALL_ATTENTION_FUNCTIONS[SCOPE_ATTENTION]
    torch.manual_seed(0)
    kept, _ = attend(Layer(), query, key, value, None, scaling=SCALE, scope=scope)
    dropped, _ = attend(Layer(), query, key, value, None, scaling=SCALE, scope=scope, dropout=0.5)
    assert not torch.allclose(kept, dropped)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_scope_gets_operands_of_one_type(dtype: torch.dtype) -> None:
    """Under autocast rotary positions leave queries and keys in float32, and `flex_attention`
    refuses them beside values in bfloat16."""
    seen: list[torch.dtype] = []

    class Watched:
        def attend(self, query: Any, key: Any, value: Any, **_: Any) -> Any:
            seen.extend(states.dtype for states in (query, key, value))
            return query

    query, key, value = torch.randn(3, 1, 2, 4, 8)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
        scope: Any = Watched()
        scope_attention(torch.nn.Module(), query, key, value.to(dtype), None, scope=scope)
    assert seen == [dtype] * 3
