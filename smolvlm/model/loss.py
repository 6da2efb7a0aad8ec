"""The loss of a pack: the output head only where something is learned.

    loss = sum_i weight_i * -log softmax(head(hidden[predict_from_i]))[target_i] / normalizer

In: hidden states of the whole pack and its targets. Out: the pack's share of the step's loss. The
normalizer is the sum of weights over the whole optimizer step (all packs, all ranks), so the shares
of a step add up to its mean. Logits are taken in float32, of a float64 model in float64. Above
`CHUNK_TARGETS` targets they are made and dropped chunk by chunk (recomputed in the backward pass);
below, chunking costs time and saves little.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

CHUNK_TARGETS = 4096


def target_losses(
    hidden: Float[Tensor, "seq hidden"],
    head: Callable[[Tensor], Tensor],
    *,
    predict_from: Int[Tensor, " target"],
    target_ids: Int[Tensor, " target"],
) -> Float[Tensor, " target"]:
    """Return each target's negative log-likelihood, nats; float32, of a float64 model float64."""
    picked = hidden.index_select(0, predict_from)
    if len(target_ids) <= CHUNK_TARGETS:
        return _losses(picked, head, target_ids)
    return torch.cat(
        [
            checkpoint(_losses, states, head, ids, use_reentrant=False)
            for states, ids in zip(
                picked.split(CHUNK_TARGETS), target_ids.split(CHUNK_TARGETS), strict=True
            )
        ]
    )


def _losses(picked: Tensor, head: Callable[[Tensor], Tensor], target_ids: Tensor) -> Tensor:
    logits = head(picked)
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return cross_entropy(precise, target_ids, reduction="none")


def weighted_mean(
    losses: Float[Tensor, " target"],
    weights: Float[Tensor, " target"],
    *,
    normalizer: Tensor | float,
) -> Float[Tensor, ""]:
    """Return the pack's share of the step's loss; 0 for a pack without targets."""
    return (losses * weights).sum() / normalizer
