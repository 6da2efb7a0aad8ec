"""The loss of a pack: the output head only where something is learned.

    loss = sum_i weight_i * -log softmax(head(hidden[predict_from_i]))[target_i] / normalizer

In: hidden states of the whole pack and its targets. Out: the pack's share of the step's loss. The
normalizer is the sum of weights over the whole optimizer step (all packs, all ranks), so the shares
of a step add up to its mean. Logits are taken in float32, of a float64 model in float64. Above
`CHUNK_TARGETS` targets they are made and dropped chunk by chunk (recomputed in the backward pass);
below, chunking costs time and saves little. Where the loss is the weighted mean and the head a
plain one, `fused_loss.py` keeps no logits at all.
"""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from smolvlm.model.fused_loss import can_fuse, fused_mean

CHUNK_TARGETS = 4096

LossOf = Callable[[Tensor, Mapping[str, Any], Tensor | float], tuple[Tensor, Mapping[str, Tensor]]]
"""(target losses, pack, normalizer) to (the pack's share of the step's loss, sums to be logged)."""


def mean_of_pack(
    losses: Float[Tensor, " target"], pack: Mapping[str, Any], normalizer: Tensor | float
) -> tuple[Float[Tensor, ""], Mapping[str, Tensor]]:
    """Return the weighted mean as a `LossOf`: the one that `pack_loss` knows a faster way to."""
    return weighted_mean(losses, pack["target_weights"], normalizer=normalizer), {}


def pack_loss(
    hidden: Float[Tensor, "seq hidden"],
    head: nn.Module,
    pack: Mapping[str, Any],
    *,
    normalizer: Tensor | float,
    loss_of: LossOf,
) -> tuple[Float[Tensor, ""], Float[Tensor, " target"], Mapping[str, Tensor]]:
    """Return the pack's share of the step's loss, the target losses, and sums to be logged.

    Args:
        hidden: of the whole pack.
        head: the output head.
        pack: `PackTensors` by name.
        normalizer: what `loss_of` divides by.
        loss_of: makes the loss of the targets' losses.
    """
    predict_from, target_ids = pack["predict_from"], pack["target_ids"]
    if loss_of is mean_of_pack and can_fuse(hidden, head):
        loss, losses = fused_mean(
            hidden.index_select(0, predict_from),
            cast("nn.Linear", head).weight,
            target_ids=target_ids,
            target_weights=pack["target_weights"],
            normalizer=normalizer,
        )
        return loss, losses, {}
    losses = target_losses(hidden, head, predict_from=predict_from, target_ids=target_ids)
    loss, metrics = loss_of(losses, pack, normalizer)
    return loss, losses, metrics


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
