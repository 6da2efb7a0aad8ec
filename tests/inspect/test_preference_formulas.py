"""The papers' preference losses: worked examples, and the same numbers as training computes."""

import math
from typing import Any, get_args

import pytest
import torch

from smolvlm.config.method import DpoMethod, PreferenceLoss, SftMethod
from smolvlm.inspect.preference_formulas import Answer, pair_loss, reference_source
from smolvlm.train.methods.preference_losses import Pairs, pair_losses

CASES: list[dict[str, Any]] = [
    {"loss_type": "sigmoid"},
    {"loss_type": "sigmoid", "label_smoothing": 0.2, "sft_weight": 0.5},
    {"loss_type": "robust", "label_smoothing": 0.3},
    {"loss_type": "hinge"},
    {"loss_type": "hinge", "beta": 5.0},
    {"loss_type": "ipo"},
    {"loss_type": "simpo", "beta": 2.0, "margin": 0.7},
    {"loss_type": "orpo", "sft_weight": 0.1},
]


def answer(logp: float, num_tokens: int, reference: float | None = None) -> Answer:
    judged = None if reference is None else torch.tensor(reference, dtype=torch.float64)
    return Answer(
        logp=torch.tensor(logp, dtype=torch.float64, requires_grad=True),
        num_tokens=num_tokens,
        reference_logp=judged,
    )


def test_the_worked_example_of_dpo() -> None:
    """The model likes the chosen answer 3 nats more than the reference does, the other 1 less."""
    chosen, rejected = answer(-5.0, 4, -8.0), answer(-9.0, 3, -8.0)
    loss = pair_loss(chosen, rejected, DpoMethod(beta=0.5))
    assert float(loss.detach()) == pytest.approx(-math.log(1 / (1 + math.exp(-0.5 * 4))), rel=1e-12)


def test_the_worked_example_of_orpo() -> None:
    chosen, rejected = answer(2 * math.log(0.5), 2), answer(3 * math.log(0.2), 3)
    loss = pair_loss(chosen, rejected, DpoMethod(loss_type="orpo", beta=0.25))
    odds_ratio = (0.5 / 0.5) / (0.2 / 0.8)
    expected = -math.log(0.5) - 0.25 * math.log(odds_ratio / (1 + odds_ratio))
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_loss_and_gradient_are_those_of_training(case: dict[str, Any]) -> None:
    settings = DpoMethod(**case)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        values = -20 * torch.rand(4, generator=generator, dtype=torch.float64) - 0.1
        logps, references = values[:2].tolist(), values[2:].tolist()
        tokens = torch.randint(1, 9, (2,), generator=generator).tolist()
        chosen, rejected = (answer(logps[side], tokens[side], references[side]) for side in (0, 1))
        loss = pair_loss(chosen, rejected, settings)
        loss.backward()
        ours = torch.tensor(logps, dtype=torch.float64, requires_grad=True)
        trained = pair_losses(
            Pairs(
                chosen=ours[:1],
                rejected=ours[1:],
                chosen_tokens=torch.tensor(tokens[:1]),
                rejected_tokens=torch.tensor(tokens[1:]),
                reference_chosen=values[2:3],
                reference_rejected=values[3:4],
            ),
            settings,
        ).sum()
        trained.backward()
        assert float(loss.detach()) == pytest.approx(float(trained.detach()), rel=1e-12)
        assert ours.grad is not None
        grads = [own.logp.grad for own in (chosen, rejected)]
        found = [0.0 if grad is None else float(grad) for grad in grads]
        assert found == pytest.approx(ours.grad.tolist(), rel=1e-9, abs=1e-15)


def test_every_loss_of_the_settings_has_a_formula() -> None:
    assert {case["loss_type"] for case in CASES} == set(get_args(PreferenceLoss))


def test_where_the_reference_comes_from() -> None:
    assert reference_source(SftMethod()) == "none"
    assert reference_source(DpoMethod(loss_type="orpo")) == "none"
    assert reference_source(DpoMethod()) == "model_at_start"
    assert reference_source(DpoMethod(reference="copy")) == "model_at_start"
    assert reference_source(DpoMethod(reference="adapter_off")) == "without_adapters"
    assert reference_source(DpoMethod(reference_model="a/b")) == "another_model"
