"""Linear layers by oneDNN equal torch's, gradients too, for every layout; where they do not apply
torch's are called."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from smolvlm.model import onednn
from smolvlm.model.cpu_choices import STOCK_CHOICES, CpuChoices, using_choices
from smolvlm.model.onednn import can_multiply, has_onednn, onednn_products, product

pytestmark = pytest.mark.skipif(not has_onednn(), reason="this build of torch has no oneDNN")
CHOSEN = CpuChoices(bf16_products=False, onednn_products=True)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What oneDNN was asked for."""
    seen: list[str] = []
    ours = onednn._pointwise

    def watched(*args: Tensor) -> Tensor:
        seen.append("oneDNN")
        return ours(*args)

    monkeypatch.setattr(onednn, "_pointwise", watched)
    return seen


def gradients(layer: nn.Linear, states: Tensor) -> list[Tensor]:
    output = layer(states)
    trained = [value for value in (states, *layer.parameters()) if value.requires_grad]
    made = torch.autograd.grad(output.sin().sum(), trained) if trained else ()
    return [output.detach(), *made]


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=2),
    inner=st.integers(1, 40),
    outer=st.integers(1, 40),
    has_bias=st.booleans(),
    trains=st.tuples(st.booleans(), st.booleans()),
    is_strided=st.booleans(),
)
def test_a_layer_and_its_gradients_are_torchs(
    shape: list[int],
    inner: int,
    outer: int,
    has_bias: bool,
    trains: tuple[bool, bool],
    is_strided: bool,
) -> None:
    layer = nn.Linear(inner, outer, bias=has_bias).requires_grad_(trains[1])
    states = torch.randn(*shape, 2 * inner)[..., ::2] if is_strided else torch.randn(*shape, inner)
    states = states.detach().requires_grad_(trains[0])
    expected = gradients(layer, states)
    with using_choices(CHOSEN), onednn_products("cpu"):
        found = gradients(layer, states)
    for own, stock in zip(found, expected, strict=True):
        torch.testing.assert_close(own, stock, rtol=1e-5, atol=1e-5)


def test_products_of_any_layout_are_torchs() -> None:
    wide = torch.randn(2, 30, 40)
    for left in (wide[0, :, :20], wide[0, :, :20].contiguous(), wide[0, :20].t()[:30]):
        for right in (wide[1, :20, :7], wide[1, :7, :20].t(), wide[1, :20, ::2]):
            torch.testing.assert_close(product(left, right), left @ right, rtol=1e-5, atol=1e-5)


def test_the_context_is_for_float32_on_a_cpu_that_chose_it(calls: list[str]) -> None:
    layer, states = nn.Linear(8, 4), torch.randn(3, 8)
    for choices, device_type in ((STOCK_CHOICES, "cpu"), (CHOSEN, "cuda")):
        with using_choices(choices), onednn_products(device_type):
            layer(states)
    assert not calls
    with using_choices(CHOSEN), onednn_products("cpu"):
        layer(states)
        assert calls == ["oneDNN"]
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(states).dtype == torch.bfloat16
        layer.double()(states.double())
        nn.Linear(8, 4)(torch.randn(0, 8))
        assert calls == ["oneDNN"]


def test_subclasses_of_tensors_are_left_to_torch() -> None:
    class Watched(Tensor):
        pass

    plain = torch.randn(3, 3)
    assert can_multiply(plain, plain)
    assert not can_multiply(plain.as_subclass(Watched), plain)
    assert not can_multiply(plain, plain.as_subclass(Watched))


def test_layers_under_activation_checkpointing_give_the_same_gradients(calls: list[str]) -> None:
    layer, states = nn.Linear(8, 8), torch.randn(3, 8, requires_grad=True)
    with using_choices(CHOSEN), onednn_products("cpu"):
        plain = torch.autograd.grad(layer(states).tanh().sum(), states)
        again = torch.autograd.grad(
            checkpoint(lambda x: layer(x).tanh(), states, use_reentrant=False).sum(), states
        )
    assert torch.equal(*plain, *again)
    assert len(calls) == 3 + 4  # forward and two gradients; forward, again, and two gradients


def fail_within() -> None:
    before = nn.functional.linear
    with onednn_products("cpu"):
        assert nn.functional.linear is not before
        raise KeyError("within")


def test_an_error_within_leaves_torch_as_it_was() -> None:
    before = nn.functional.linear
    with using_choices(CHOSEN), pytest.raises(KeyError, match="within"):
        fail_within()
    assert nn.functional.linear is before


def test_a_second_derivative_is_refused() -> None:
    layer, states = nn.Linear(4, 4), torch.randn(2, 4, requires_grad=True)
    with using_choices(CHOSEN), onednn_products("cpu"):
        (first,) = torch.autograd.grad(layer(states).sin().sum(), states, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()
