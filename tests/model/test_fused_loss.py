"""The mean and its gradients made in the forward equal autograd's, keep no logits, and are left
where something else than the plain head or the plain mean is asked for."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.config.method import DpoMethod
from smolvlm.model import fused_loss, loss
from smolvlm.model.cpu_choices import STOCK_CHOICES, CpuChoices, using_choices
from smolvlm.model.loss import mean_of_pack, pack_loss
from smolvlm.train.methods.dpo import Preference
from smolvlm.train.methods.sft import Supervised

SEQ, HIDDEN, VOCABULARY = 40, 16, 301
ONEDNN = CpuChoices(bf16_products=False, onednn_products=True)


@pytest.fixture(
    params=product([(4, 3, 64), (16, 2, 301), (512, 8, 8192)], [STOCK_CHOICES, ONEDNN]), ids=str
)
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Targets a chunk, rows a block, rows a slice (the last as they are on a CPU); and who
    multiplies float32."""
    names = ("TARGETS_PER_CHUNK", "ROWS_PER_BLOCK", "ROWS_PER_SLICE")
    sizes, choices = request.param
    for name, value in zip(names, sizes, strict=True):
        monkeypatch.setitem(getattr(fused_loss, name), "cpu", value)
    with using_choices(choices):
        yield


class Problem:
    """A small head and a pack's targets; some positions predict several, some weights are 0."""

    def __init__(self, targets: int, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(targets)
        self.hidden = torch.randn(SEQ, HIDDEN, generator=generator, dtype=dtype).requires_grad_()
        self.head: Any = nn.Linear(HIDDEN, VOCABULARY, bias=False, dtype=dtype)
        with torch.no_grad():
            self.head.weight.normal_(generator=generator)
        weights = torch.rand(targets, generator=generator)
        self.pack = {
            "predict_from": torch.randint(0, SEQ, (targets,), generator=generator),
            "target_ids": torch.randint(0, VOCABULARY, (targets,), generator=generator),
            "target_weights": torch.where(weights < 0.2, 0.0, weights),
        }

    def run(self, *, fused: bool, scale: float = 1.0, half: bool = False) -> list[Tensor]:
        """Return loss, target losses, and the gradients of what trains."""
        way = mean_of_pack if fused else (lambda *inputs: mean_of_pack(*inputs))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            mean, losses, _ = pack_loss(
                self.hidden, self.head, self.pack, normalizer=torch.tensor(7.3), loss_of=way
            )
        assert (type(mean.grad_fn).__name__ == "_FusedMeanBackward") == fused
        trained = [value for value in (self.hidden, self.head.weight) if value.requires_grad]
        return [mean.detach(), losses.detach(), *torch.autograd.grad(scale * mean, trained)]


def assert_equal(found: list[Tensor], expected: list[Tensor]) -> None:
    """Not to the bit: the target's gradient is rounded once more, and chunks are added up."""
    assert len(found) == len(expected)
    for own, other in zip(found, expected, strict=True):
        assert own.dtype == other.dtype
        assert float((own - other).norm()) <= 1e-6 * float(other.norm())


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("targets", [0, 1, 3, 4, 5, 16, 33])
def test_loss_and_gradients_equal_autograds(targets: int) -> None:
    problem = Problem(targets)
    assert_equal(problem.run(fused=True), problem.run(fused=False))


@pytest.mark.usefixtures("sizes")
def test_what_arrives_from_above_multiplies_the_gradients() -> None:
    problem = Problem(33)
    assert_equal(problem.run(fused=True, scale=-3.7), problem.run(fused=False, scale=-3.7))


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("frozen", ["head", "hidden"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    problem = Problem(33)
    (problem.head.weight if frozen == "head" else problem.hidden).requires_grad_(False)
    found = problem.run(fused=True)
    assert len(found) == 3
    assert_equal(found, problem.run(fused=False))


@pytest.mark.usefixtures("sizes")
def test_a_tied_weight_gets_both_gradients() -> None:
    problem, ids = Problem(33), torch.arange(SEQ)

    def gradient(fused: bool) -> list[Tensor]:
        problem.hidden = torch.nn.functional.embedding(ids, problem.head.weight)
        weight = problem.head.weight
        way = mean_of_pack if fused else (lambda *inputs: mean_of_pack(*inputs))
        mean = pack_loss(problem.hidden, problem.head, problem.pack, normalizer=3.0, loss_of=way)[0]
        return list(torch.autograd.grad(mean, [weight]))

    assert_equal(gradient(True), gradient(False))


@pytest.mark.usefixtures("sizes")
def test_a_float64_model_is_computed_in_float64() -> None:
    problem = Problem(33, torch.float64)
    found, expected = problem.run(fused=True), problem.run(fused=False)
    assert found[1].dtype == torch.float64
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("is_autocast", [True, False])
def test_bfloat16_is_no_less_exact_than_autograds(is_autocast: bool) -> None:
    dtype = torch.float32 if is_autocast else torch.bfloat16
    problem = Problem(500, dtype)
    exact = Problem(500, torch.float64)
    exact.pack = problem.pack
    with torch.no_grad():
        exact.hidden.copy_(problem.hidden)
        exact.head.weight.copy_(problem.head.weight)
    right = exact.run(fused=False)
    found, expected = (problem.run(fused=fused, half=is_autocast)[2:] for fused in (True, False))
    for own, other, wanted in zip(found, expected, right[2:], strict=True):
        assert own.dtype == other.dtype == dtype
        errors = [float((value.double() - wanted).norm()) for value in (own, other)]
        assert 0 < errors[0] <= 1.001 * errors[1]


class Alive(TorchDispatchMode):
    """Notes the most elements of tensors as wide as the vocabulary that one operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in () if func.is_view else tree_leaves(result):
            if isinstance(value, Tensor) and value.ndim == 2 and value.shape[1] == VOCABULARY:
                self.largest = max(self.largest, len(value))
        return result


@pytest.mark.parametrize(("fused", "largest"), [(True, 4), (False, 33)])
def test_logits_of_a_chunk_alone_exist_and_none_is_kept(
    fused: bool, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fused_loss.TARGETS_PER_CHUNK, "cpu", 4)
    kept: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        kept.append(value)
        return value

    with Alive() as alive, torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        Problem(33).run(fused=fused)
    assert alive.largest == largest
    assert any(VOCABULARY in value.shape[1:] for value in kept) != fused


def test_the_gradient_becomes_the_parameters_without_a_copy() -> None:
    problem = Problem(5)
    mean = pack_loss(
        problem.hidden, problem.head, problem.pack, normalizer=1.0, loss_of=mean_of_pack
    )[0]
    address = mean.grad_fn.saved_tensors[1].data_ptr()  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    mean.backward()
    assert problem.head.weight.grad.data_ptr() == address


def test_a_second_backward_and_a_second_derivative_are_refused() -> None:
    problem = Problem(5)

    def mean() -> Tensor:
        return pack_loss(
            problem.hidden, problem.head, problem.pack, normalizer=1.0, loss_of=mean_of_pack
        )[0]

    twice = mean()
    twice.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        twice.backward()
    (gradient,) = torch.autograd.grad(mean(), [problem.hidden], create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()
    factor = torch.ones((), requires_grad=True)
    (gradient,) = torch.autograd.grad(factor * mean(), [problem.hidden], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


class Derived(nn.Linear):
    """Any layer that is not quite the stock one."""


def replaced(head: nn.Linear) -> nn.Linear:
    head.forward = lambda *inputs: nn.Linear.forward(head, *inputs)
    return head


def hooked(register: str) -> Callable[[nn.Linear], nn.Linear]:
    def make(head: nn.Linear) -> nn.Linear:
        getattr(head, register)(lambda *_: None)
        return head

    return make


OTHER_HEADS: dict[str, Callable[[nn.Linear], nn.Linear]] = {
    "a bias": lambda _: nn.Linear(HIDDEN, VOCABULARY),
    "a subclass": lambda _: Derived(HIDDEN, VOCABULARY, bias=False),
    "float16": lambda head: head.half(),
    "another forward": replaced,
    **{
        name: hooked(name)
        for name in (
            *("register_forward_hook", "register_forward_pre_hook"),
            *("register_full_backward_hook", "register_full_backward_pre_hook"),
        )
    },
}


@pytest.mark.parametrize("kind", OTHER_HEADS)
def test_other_heads_are_called(kind: str) -> None:
    problem = Problem(5)
    assert fused_loss.can_fuse(problem.hidden, problem.head)
    head = OTHER_HEADS[kind](problem.head)
    assert not fused_loss.can_fuse(problem.hidden.to(head.weight.dtype), head)


def test_without_gradients_the_head_is_called() -> None:
    problem = Problem(5)
    with torch.no_grad():
        assert not fused_loss.can_fuse(problem.hidden, problem.head)
    problem.head.requires_grad_(False)
    assert not fused_loss.can_fuse(problem.hidden.detach(), problem.head)


@pytest.mark.parametrize(("method", "fused"), [("sft", True), ("none", True), ("dpo", False)])
def test_of_the_methods_sft_alone_is_fused(
    checkpoint: Any, pack_of: Any, method: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[str] = []
    for name in ("fused_mean", "target_losses"):
        stock = getattr(loss, name)
        monkeypatch.setattr(
            loss, name, lambda *a, _of=stock, _name=name, **k: (used.append(_name), _of(*a, **k))[1]
        )
    pack = pack_of([((), "Hi there", "Hello."), ((), "Count to two", "One, two.")]).model_tensors()
    pack["reference_logps"] = torch.zeros(2)
    ways = {"sft": Supervised().loss, "dpo": Preference(settings=DpoMethod()).loss, "none": None}
    pack.setdefault("target_groups", torch.zeros_like(pack["target_ids"]))
    pack.setdefault("group_sizes", torch.tensor([len(pack["target_ids"]), 0]))
    checkpoint.model(pack=pack, normalizer=2.0, loss_of=ways[method]).loss.backward()
    assert used == ["fused_mean" if fused else "target_losses"]


@pytest.mark.parametrize("trained", ["all", "tower alone"])
def test_a_models_gradients_equal_those_of_autograd(
    checkpoint: Any, pack_of: Any, picture: Any, trained: str
) -> None:
    model = checkpoint.model
    rates = {"vision_tower": 1e-5, "connector": 1e-4, "language_model": 1e-4}
    freeze(model, LearningRates(full=rates if trained == "all" else {"vision_tower": 1e-5}))
    pack = pack_of([([picture(0)], "What?", "Noise."), ((), "Hi", "Hello.")]).model_tensors()
    found: list[list[Tensor]] = []
    for way in (None, lambda *inputs: mean_of_pack(*inputs)):
        model.zero_grad()
        output = model(pack=pack, normalizer=5.0, loss_of=way)
        output.loss.backward()
        assert not output.target_losses.requires_grad
        gradients = [value.grad for value in model.parameters() if value.grad is not None]
        found.append([output.loss.detach(), output.target_losses, *gradients])
    for own, other in zip(*found, strict=True):
        assert float((own - other).norm()) <= 1e-5 * float(other.norm()) + 1e-9
