"""FlashAttention over packs without branches: the borders, the call, and what is refused.

The kernel needs a GPU; a reference of its signature stands in for it here.
"""

import inspect
import pickle
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

from smolvlm.datasets.encoding.tree import visible
from smolvlm.errors import ConfigError
from smolvlm.model.attention import varlen
from smolvlm.model.attention.flex import FlexPlan
from smolvlm.model.attention.rule import attention_kind, attention_planner
from smolvlm.model.attention.varlen import (
    VarlenPlan,
    check_head_size,
    check_varlen,
    plan_varlen,
)
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


def reference(*args: Any, **kwargs: Any) -> Tensor:
    """Attend sequence by sequence, called as `varlen_attn` is."""
    given = inspect.signature(varlen_attn).bind(*args, **kwargs)
    given.apply_defaults()
    call = given.arguments
    assert call["window_size"] == (-1, 0), "causal"
    borders = call["cu_seq_q"]
    assert borders.dtype == torch.int32
    assert torch.equal(borders, call["cu_seq_k"])
    sizes = borders.diff().tolist()
    assert call["max_q"] == call["max_k"] == max(sizes)
    parts = [call[name].split(sizes) for name in ("query", "key", "value")]
    outputs = [
        scaled_dot_product_attention(
            *(part.transpose(0, 1)[None] for part in sequence),
            is_causal=True,
            scale=call["scale"],
            enable_gqa=call["enable_gqa"],
        )[0].transpose(0, 1)
        for sequence in zip(*parts, strict=True)
    ]
    return torch.cat(outputs)


@pytest.fixture
def _reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_kernel", lambda: reference)


plain_packs = st.lists(st.integers(1, 30), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(pack=packs)
@example(pack=[(1, [])])
@example(pack=[(3, [(2, [])])])
@example(pack=[(3, [(2, []), (1, [])])])
def test_a_pack_is_planned_for_the_kernel_exactly_where_nothing_branches(pack: list[Node]) -> None:
    scope_end = scope_end_of(pack)
    sizes = [size_of(node) for node in pack]
    number = np.repeat(np.arange(len(sizes)), sizes)
    causal = np.tril(number[:, None] == number[None, :])
    plan = plan_varlen(scope_end)
    if np.array_equal(visible(scope_end), causal):
        assert isinstance(plan, VarlenPlan)
        assert plan.borders.tolist() == [0, *np.cumsum(sizes).tolist()]
        assert plan.longest == max(sizes)
    else:
        assert isinstance(plan, FlexPlan)


@pytest.mark.usefixtures("_reference")
@pytest.mark.parametrize("seed", range(4))
def test_output_and_gradients_are_those_of_the_rule(seed: int) -> None:
    sizes = np.random.default_rng(seed).integers(1, 40, 1 + 3 * seed).tolist()
    scope_end = scope_end_of([(size, []) for size in sizes])
    scope = plan_varlen(scope_end).over(torch.from_numpy(scope_end))
    inputs = states(len(scope_end), seed)
    found = forward_and_gradients(
        lambda query, key, value: scope.attend(query, key, value, scale=SCALE, dropout=0.0), inputs
    )
    expected = forward_and_gradients(lambda *qkv: dense(*qkv, scope_end), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_a_plan_travels_as_others_do() -> None:
    plan = plan_varlen(scope_end_of([(3, []), (2, [])]))
    assert isinstance(plan, VarlenPlan)
    again = pickle.loads(pickle.dumps(plan)).to("cpu")
    assert torch.equal(again.borders, plan.borders)
    assert again.longest == 3
    assert [value.dtype for value in plan.tensors()] == [torch.int32]
    assert pickle.loads(pickle.dumps(plan_varlen)) is plan_varlen


def test_dropout_is_refused() -> None:
    plan = plan_varlen(scope_end_of([(3, [])]))
    scope = plan.over(torch.zeros(3))
    with pytest.raises(ValueError, match="no dropout; set attention_dropout to 0"):
        scope.attend(*states(3), scale=None, dropout=0.1)


def test_it_is_planned_on_cuda_and_only_where_it_is_asked_for() -> None:
    assert attention_planner("cuda", is_varlen=True) is plan_varlen
    assert attention_planner("cuda") is not plan_varlen
    assert attention_planner("cpu", is_varlen=True) is attention_planner("cpu")
    assert attention_kind("cuda", is_varlen=True).startswith("varlen FlashAttention")


@pytest.mark.parametrize(
    ("device_type", "is_half", "words"),
    [
        ("cpu", True, "it is for CUDA, and the run trains on cpu"),
        ("mps", True, "it is for CUDA, and the run trains on mps"),
        ("cuda", False, "computes in bfloat16 or float16, and the run in float32"),
    ],
)
def test_where_it_does_not_run_it_is_refused(device_type: str, is_half: bool, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_varlen(device_type, is_half=is_half)
    assert words in str(caught.value)
    assert caught.value.where == "model.attention=varlen"
    assert "take the setting out" in str(caught.value.fix)


def test_an_older_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(ConfigError, match="an Ampere GPU or a later one, not a T4"):
        check_varlen("cuda", is_half=True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    check_varlen("cuda", is_half=True)


def test_a_torch_whose_kernel_knows_no_groups_of_heads_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def earlier(query: Any, key: Any, value: Any, is_causal: bool = False) -> None: ...

    monkeypatch.setattr(varlen, "varlen_kernel", lambda: earlier)
    with pytest.raises(ConfigError, match="has no such attention") as caught:
        check_varlen("cuda", is_half=True)
    assert str(caught.value.fix).startswith("install torch 2.14")


@pytest.mark.parametrize(("hidden", "heads", "fits"), [(576, 9, True), (60, 5, False)])
def test_heads_that_the_kernel_does_not_take_are_refused(
    hidden: int, heads: int, fits: bool
) -> None:
    config: Any = SimpleNamespace(hidden_size=hidden, num_attention_heads=heads)
    if fits:
        check_head_size(config)
    else:
        with pytest.raises(ConfigError, match="heads have 12 dimensions"):
            check_head_size(config)
