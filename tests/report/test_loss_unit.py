"""What a run's loss is called, and its unit."""

from typing import get_args

import pytest

from smolvlm.config.method import PreferenceLoss
from smolvlm.report.loss_unit import ANY_PAIR_LOSS, PAIR_LOSSES, TOKEN_LOSS, loss_unit

PAIRS = [{"step": 1, "loss": 0.69, "rewards_margin": 0.0}]


def test_answers_are_learned_by_tokens_whatever_the_settings_say() -> None:
    assert loss_unit([{"step": 1, "loss": 2.0}], "train: {method: dpo}") == TOKEN_LOSS
    assert loss_unit([], "") == TOKEN_LOSS


@pytest.mark.parametrize("loss_type", PAIR_LOSSES)
@pytest.mark.parametrize(
    "settings",
    ["train: {{method: dpo, loss_type: {0}}}", "train: {{method: {{type: dpo, loss_type: {0}}}}}"],
)
def test_pairs_are_called_by_their_loss(loss_type: str, settings: str) -> None:
    assert loss_unit(PAIRS, settings.format(loss_type)) == PAIR_LOSSES[loss_type]


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "train: [",
        "[1]",
        "train: 3",
        "train: {loss_type: [1]}",
        "train: {loss_type: sigmoid, sft_weight: 0.1}",
    ],
)
def test_without_settings_or_with_a_mixture_of_losses_nothing_more_is_claimed(
    settings: str,
) -> None:
    assert loss_unit(PAIRS, settings) == ANY_PAIR_LOSS


def test_every_loss_that_can_be_set_is_known() -> None:
    assert set(PAIR_LOSSES) == set(get_args(PreferenceLoss))
