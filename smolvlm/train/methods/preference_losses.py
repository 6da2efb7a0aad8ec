"""Preference losses over pairs of answers: arithmetic on log-probabilities, no model.

In: for each pair the summed log-probability of its better and its worse answer, under the model and
under the reference. Out: a loss a pair, and the rewards that the logs report. Formulas:

- `sigmoid`: Rafailov et al. 2023, eq. 7; with label smoothing e of Mitchell's note on noisy
  preferences (cDPO).
- `robust`: Chowdhury et al. 2024, unbiased under flips of a share e of the labels.
- `hinge`: Zhao et al. 2023 (SLiC); `ipo`: Azar et al. 2023, eq. 17, on averages over tokens.
- `simpo`: Meng et al. 2024, eq. 6, averages over tokens and no reference; `orpo`: Hong et al. 2024,
  eq. 6, the same.

`sft_weight` adds the better answer's mean negative log-likelihood a token, times the weight, to any
of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import logsigmoid, relu

from smolvlm.config.method import DpoMethod, PreferenceLoss


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """Log-probabilities of pairs of answers, nats, summed over learned tokens (axis `pair`)."""

    chosen: Float[Tensor, " pair"]
    rejected: Float[Tensor, " pair"]
    chosen_tokens: Int[Tensor, " pair"]
    rejected_tokens: Int[Tensor, " pair"]
    reference_chosen: Float[Tensor, " pair"] | None
    """None for losses without a reference."""
    reference_rejected: Float[Tensor, " pair"] | None

    @property
    def gains(self) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
        """How much likelier each answer became than it is under the reference, in nats."""
        assert self.reference_chosen is not None
        assert self.reference_rejected is not None
        return self.chosen - self.reference_chosen, self.rejected - self.reference_rejected

    @property
    def means(self) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
        """The log-probability of each answer a token."""
        return self.chosen / self.chosen_tokens, self.rejected / self.rejected_tokens


def pairs_of(
    losses: Float[Tensor, " target"],
    target_groups: Int[Tensor, " target"],
    group_sizes: Int[Tensor, " group"],
    reference_logps: Float[Tensor, " group"] | None,
) -> Pairs:
    """Gather the targets of a pack into its pairs.

    Args:
        losses: negative log-likelihoods.
        target_groups: which answer each target belongs to: of pair i the better is 2 i, the worse 2
            i + 1.
        group_sizes: targets of each answer.
        reference_logps: of each answer.
    """
    logps = answer_logps(losses, target_groups, len(group_sizes))
    return Pairs(
        chosen=logps[0::2],
        rejected=logps[1::2],
        chosen_tokens=group_sizes[0::2],
        rejected_tokens=group_sizes[1::2],
        reference_chosen=None if reference_logps is None else reference_logps[0::2],
        reference_rejected=None if reference_logps is None else reference_logps[1::2],
    )


def answer_logps(
    losses: Float[Tensor, " target"], target_groups: Int[Tensor, " target"], num_groups: int
) -> Float[Tensor, " group"]:
    """Return each answer's log-probability, nats, from its targets' losses.

    Targets of group `num_groups` are padding and left out.
    """
    sums = losses.new_zeros(num_groups + 1).index_add(0, target_groups, -losses)
    return sums[:num_groups]


def pair_losses(pairs: Pairs, settings: DpoMethod) -> Float[Tensor, " pair"]:
    """Return each pair's loss."""
    losses = _LOSSES[settings.loss_type](pairs, settings)
    if settings.sft_weight:
        losses = losses - settings.sft_weight * pairs.means[0]
    return losses


def rewards(
    pairs: Pairs, settings: DpoMethod
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Return the rewards of the better and the worse answers: beta times what the loss compares."""
    compared = pairs.gains if settings.needs_reference else pairs.means
    return settings.beta * compared[0].detach(), settings.beta * compared[1].detach()


def _difference(pairs: Pairs) -> Float[Tensor, " pair"]:
    chosen, rejected = pairs.gains
    return chosen - rejected


def _sigmoid(pairs: Pairs, settings: DpoMethod) -> Tensor:
    logits, smoothing = settings.beta * _difference(pairs), settings.label_smoothing
    return -(1 - smoothing) * logsigmoid(logits) - smoothing * logsigmoid(-logits)


def _robust(pairs: Pairs, settings: DpoMethod) -> Tensor:
    logits, smoothing = settings.beta * _difference(pairs), settings.label_smoothing
    kept, flipped = -(1 - smoothing) * logsigmoid(logits), -smoothing * logsigmoid(-logits)
    return (kept - flipped) / (1 - 2 * smoothing)


def _hinge(pairs: Pairs, settings: DpoMethod) -> Tensor:
    return relu(1 - settings.beta * _difference(pairs))


def _ipo(pairs: Pairs, settings: DpoMethod) -> Tensor:
    chosen, rejected = pairs.gains
    difference = chosen / pairs.chosen_tokens - rejected / pairs.rejected_tokens
    return (difference - 1 / (2 * settings.beta)) ** 2


def _simpo(pairs: Pairs, settings: DpoMethod) -> Tensor:
    chosen, rejected = pairs.means
    return -logsigmoid(settings.beta * (chosen - rejected) - settings.margin)


def _orpo(pairs: Pairs, settings: DpoMethod) -> Tensor:
    chosen, rejected = pairs.means
    log_odds = (chosen - rejected) - (torch.log1p(-chosen.exp()) - torch.log1p(-rejected.exp()))
    return -chosen - settings.beta * logsigmoid(log_odds)


_LOSSES: Mapping[PreferenceLoss, Callable[[Pairs, DpoMethod], Tensor]] = {
    "sigmoid": _sigmoid,
    "robust": _robust,
    "hinge": _hinge,
    "ipo": _ipo,
    "simpo": _simpo,
    "orpo": _orpo,
}
