"""The preference losses as their papers write them: what training computes is compared with this.

In: one pair's log-probabilities, summed over the answers' learned tokens, nats. Out: its loss. This
file shares nothing with `train/methods/preference_losses.py`, on purpose: an error in one of the
two shows as a difference.

    h = beta (log pi(w)/ref(w) - log pi(l)/ref(l))     w chosen, l rejected

- `sigmoid`: -(1 - e) log s(h) - e log s(-h), s the logistic function. Rafailov et al. 2023, eq. 7,
  with the label smoothing e of Mitchell 2023 (cDPO).
- `robust`: ((1 - e) L(w, l) - e L(l, w)) / (1 - 2 e), L = -log s(+-h). Chowdhury et al. 2024, eq.
  12.
- `hinge`: max(0, 1 - h). Zhao et al. 2023, with the margin 1 / beta of Liu et al. 2023.
- `ipo`: (h' - 1 / (2 beta))^2, where h' takes each log-ratio's mean over tokens and no beta. Azar
  et al. 2023, eq. 17.
- `simpo`: -log s(beta (mean log pi(w) - mean log pi(l)) - margin). Meng et al. 2024, eq. 6.
- `orpo`: -mean log pi(w) - beta log s(log odds(w) - log odds(l)), odds = p / (1 - p) of
  p = exp(mean log pi). Hong et al. 2024, eq. 6 and 7.

`sft_weight` adds the chosen answer's mean negative log-likelihood times itself.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float64
from torch import Tensor

from smolvlm.config.method import DpoMethod, MethodConfig

ReferenceSource = Literal["none", "another_model", "model_at_start", "without_adapters"]


def reference_source(method: MethodConfig) -> ReferenceSource:
    """Return which model a run's method compares its answers with."""
    if not isinstance(method, DpoMethod) or not method.needs_reference:
        return "none"
    if method.reference_model is not None:
        return "another_model"
    return "without_adapters" if method.reference == "adapter_off" else "model_at_start"


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer of a pair."""

    logp: Float64[Tensor, ""]
    """Log-probability of its learned tokens together, nats."""
    num_tokens: int
    """Learned ones."""
    reference_logp: Float64[Tensor, ""] | None
    """The same under the reference; None where the loss has none."""

    @property
    def mean_logp(self) -> Tensor:
        return self.logp / self.num_tokens

    @property
    def log_ratio(self) -> Tensor:
        assert self.reference_logp is not None, "the loss compares with a reference"
        return self.logp - self.reference_logp


def pair_loss(chosen: Answer, rejected: Answer, settings: DpoMethod) -> Float64[Tensor, ""]:
    """Return the loss of one pair."""
    loss = _compared(chosen, rejected, settings)
    return loss + settings.sft_weight * -chosen.mean_logp


def _compared(chosen: Answer, rejected: Answer, settings: DpoMethod) -> Tensor:
    beta, smoothing = settings.beta, settings.label_smoothing
    match settings.loss_type:
        case "sigmoid":
            h = beta * (chosen.log_ratio - rejected.log_ratio)
            return (1 - smoothing) * _minus_log_s(h) + smoothing * _minus_log_s(-h)
        case "robust":
            h = beta * (chosen.log_ratio - rejected.log_ratio)
            right, flipped = _minus_log_s(h), _minus_log_s(-h)
            return ((1 - smoothing) * right - smoothing * flipped) / (1 - 2 * smoothing)
        case "hinge":
            h = beta * (chosen.log_ratio - rejected.log_ratio)
            return torch.clamp(1 - h, min=0)
        case "ipo":
            means = [answer.log_ratio / answer.num_tokens for answer in (chosen, rejected)]
            return (means[0] - means[1] - 1 / (2 * beta)) ** 2
        case "simpo":
            return _minus_log_s(beta * (chosen.mean_logp - rejected.mean_logp) - settings.margin)
        case "orpo":
            log_odds = [
                torch.log(torch.exp(answer.mean_logp) / (1 - torch.exp(answer.mean_logp)))
                for answer in (chosen, rejected)
            ]
            return -chosen.mean_logp + beta * _minus_log_s(log_odds[0] - log_odds[1])


def _minus_log_s(h: Tensor) -> Tensor:
    """Return -log(1 / (1 + exp(-h)))."""
    return torch.logaddexp(torch.zeros_like(h), -h)
