"""Preference losses against formulas written out anew, and their laws."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from smolvlm.config.method import DpoMethod, PreferenceLoss
from smolvlm.train.methods.preference_losses import Pairs, pair_losses, pairs_of, rewards

LOGPS = st.floats(-60, -0.05)


def pair(values: tuple[float, float, float, float], tokens: tuple[int, int] = (3, 5)) -> Pairs:
    chosen, rejected, reference_chosen, reference_rejected = (
        torch.tensor([value], dtype=torch.float64) for value in values
    )
    return Pairs(
        chosen=chosen,
        rejected=rejected,
        chosen_tokens=torch.tensor([tokens[0]]),
        rejected_tokens=torch.tensor([tokens[1]]),
        reference_chosen=reference_chosen,
        reference_rejected=reference_rejected,
    )


def loss(pairs: Pairs, loss_type: PreferenceLoss, **more: float) -> float:
    return float(pair_losses(pairs, DpoMethod(loss_type=loss_type, **({"beta": 0.1} | more))))


@settings(deadline=None)
@given(
    values=st.tuples(LOGPS, LOGPS, LOGPS, LOGPS),
    beta=st.floats(0.01, 3),
    smoothing=st.floats(0, 0.45),
)
def test_the_formulas(
    values: tuple[float, float, float, float], beta: float, smoothing: float
) -> None:
    chosen, rejected, reference_chosen, reference_rejected = values
    difference = (chosen - reference_chosen) - (rejected - reference_rejected)
    pairs = pair(values)

    def sigmoid(x: float) -> float:
        return float(logsigmoid(torch.tensor(x, dtype=torch.float64)))

    own = -(1 - smoothing) * sigmoid(beta * difference) - smoothing * sigmoid(-beta * difference)
    assert loss(pairs, "sigmoid", beta=beta, label_smoothing=smoothing) == pytest.approx(
        own, abs=1e-9
    )
    own = (
        -(1 - smoothing) * sigmoid(beta * difference) + smoothing * sigmoid(-beta * difference)
    ) / (1 - 2 * smoothing)
    assert loss(pairs, "robust", beta=beta, label_smoothing=smoothing) == pytest.approx(
        own, abs=1e-9
    )
    assert loss(pairs, "hinge", beta=beta) == pytest.approx(max(0, 1 - beta * difference), abs=1e-9)
    per_token = (chosen - reference_chosen) / 3 - (rejected - reference_rejected) / 5
    assert loss(pairs, "ipo", beta=beta) == pytest.approx(
        (per_token - 1 / (2 * beta)) ** 2, rel=1e-9, abs=1e-9
    )
    simpo = -sigmoid(beta * (chosen / 3 - rejected / 5) - 0.5)
    assert loss(pairs, "simpo", beta=beta, margin=0.5) == pytest.approx(simpo, abs=1e-9)
    odds = [math.exp(value) / (1 - math.exp(value)) for value in (chosen / 3, rejected / 5)]
    orpo = -chosen / 3 - beta * sigmoid(math.log(odds[0] / odds[1]))
    assert loss(pairs, "orpo", beta=beta) == pytest.approx(orpo, rel=1e-7, abs=1e-7)
    with_answers = loss(pairs, "sigmoid", beta=beta) - 0.3 * chosen / 3
    assert loss(pairs, "sigmoid", beta=beta, sft_weight=0.3) == pytest.approx(
        with_answers, abs=1e-9
    )


def test_the_first_loss_is_that_of_a_coin() -> None:
    same = pair((-3.0, -9.0, -3.0, -9.0))
    assert loss(same, "sigmoid") == pytest.approx(math.log(2))
    assert loss(same, "hinge") == pytest.approx(1.0)
    assert loss(same, "ipo") == pytest.approx(25.0)


def test_rewards_are_the_gains_times_beta() -> None:
    chosen, rejected = rewards(
        pair((-3.0, -9.0, -4.0, -7.0)), DpoMethod(loss_type="sigmoid", beta=0.5)
    )
    assert (float(chosen), float(rejected)) == pytest.approx((0.5, -1.0))


def test_targets_are_gathered_by_answer() -> None:
    losses = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0], requires_grad=True)
    pairs = pairs_of(
        losses,
        torch.tensor([0, 0, 1, 2, 3]),
        torch.tensor([2, 1, 1, 1]),
        torch.tensor([-1.0, -2.0, -3.0, -4.0]),
    )
    assert (pairs.chosen.tolist(), pairs.rejected.tolist()) == ([-3.0, -8.0], [-4.0, -16.0])
    assert (pairs.chosen_tokens.tolist(), pairs.rejected_tokens.tolist()) == ([2, 1], [1, 1])
    assert pairs.gains[0].tolist() == [-2.0, -5.0]
    pairs.chosen[0].backward()
    assert losses.grad is not None
    assert losses.grad.tolist() == [-1.0, -1.0, 0.0, 0.0, 0.0]
