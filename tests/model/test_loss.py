"""Target losses equal the full head's, whole or chunked; shares of a step's packs add up to its
mean."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from smolvlm.model import loss
from smolvlm.model.loss import target_losses, weighted_mean

SEQ, HIDDEN, VOCABULARY, TARGETS = 23, 6, 31, 11


@pytest.fixture
def problem() -> tuple[Tensor, nn.Linear, Tensor, Tensor]:
    """(hidden states, head, predict_from, target_ids); one position predicts several targets, as a
    trunk does."""
    torch.manual_seed(0)
    head = nn.Linear(HIDDEN, VOCABULARY, bias=False)
    predict_from = torch.randint(0, SEQ, (TARGETS,))
    predict_from[:3] = 5
    return (
        torch.randn(SEQ, HIDDEN, requires_grad=True),
        head,
        predict_from,
        torch.randint(0, VOCABULARY, (TARGETS,)),
    )


@pytest.mark.parametrize("chunk", [1, 3, 10, 11, 4096])
def test_losses_and_gradients_equal_the_full_heads(
    problem, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, head, predict_from, target_ids = problem
    monkeypatch.setattr(loss, "CHUNK_TARGETS", chunk)
    found = target_losses(hidden, head, predict_from=predict_from, target_ids=target_ids)
    expected = cross_entropy(head(hidden)[predict_from], target_ids, reduction="none")
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    ours = torch.autograd.grad(found.sum(), [hidden, head.weight])
    theirs = torch.autograd.grad(expected.sum(), [hidden, head.weight])
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("chunk", "largest"), [(4, 4), (4096, TARGETS)])
def test_the_head_sees_targets_alone_and_at_most_a_chunk_of_them(
    problem, chunk: int, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, head, predict_from, target_ids = problem
    monkeypatch.setattr(loss, "CHUNK_TARGETS", chunk)
    seen: list[int] = []

    def watched(states: Tensor) -> Tensor:
        seen.append(len(states))
        return head(states)

    target_losses(hidden, watched, predict_from=predict_from, target_ids=target_ids)
    assert sum(seen) == TARGETS
    assert max(seen) == largest


@pytest.mark.parametrize("chunk", [4, 4096])
def test_losses_are_float32_whatever_the_head_computes_in(
    problem, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden, head, predict_from, target_ids = problem
    monkeypatch.setattr(loss, "CHUNK_TARGETS", chunk)
    half = head.bfloat16()
    found = target_losses(hidden.bfloat16(), half, predict_from=predict_from, target_ids=target_ids)
    logits = half(hidden.bfloat16()[predict_from])
    assert logits.dtype is torch.bfloat16
    assert found.dtype is torch.float32
    torch.testing.assert_close(found, cross_entropy(logits.float(), target_ids, reduction="none"))


def test_the_shares_of_a_steps_packs_add_up_to_the_weighted_mean() -> None:
    losses, weights = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 0.5, 0.25])
    normalizer = weights.sum()
    shares = [
        weighted_mean(losses[part], weights[part], normalizer=normalizer)
        for part in (slice(0, 1), slice(1, None))
    ]
    torch.testing.assert_close(sum(shares), (losses * weights).sum() / weights.sum())


def test_a_pack_without_targets_has_loss_0_and_gradients_of_0(problem) -> None:
    hidden, head, _, _ = problem
    none = torch.zeros(0, dtype=torch.long)
    losses = target_losses(hidden, head, predict_from=none, target_ids=none)
    share = weighted_mean(losses, torch.zeros(0), normalizer=4.0)
    share.backward()
    assert share.item() == 0.0
    assert hidden.grad is not None
    assert not hidden.grad.any()
    assert head.weight.grad is not None
    assert not head.weight.grad.any()
