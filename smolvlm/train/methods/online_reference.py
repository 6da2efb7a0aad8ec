"""The reference asked in the step: the model without its adapters, or a frozen copy of it as it was
at the start.

In: a pack on its way to the model. Out: the same pack with what the reference thinks of its
answers. That is one more forward a step, without gradient and without dropout; nothing is computed
ahead and nothing kept on disk. With a frozen vision tower the pictures are encoded once for both:
the pack comes back with the features in place of its tiles.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from smolvlm.checkpoints.peft_layers import adapters_off
from smolvlm.model.evaluating import evaluating
from smolvlm.protocols import VisionLanguageModel
from smolvlm.train.methods.preference_losses import answer_logps


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgedPack:
    """A pack's tensors after the reference saw them."""

    tensors: dict[str, Any]
    """With `reference_logps`; what was encoded for the reference stands in `cached_features`,
    `tiles` is then empty."""
    computed_features: Tensor | None
    """What was encoded, in the form in which the vision cache keeps it; None where the model has to
    do it itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OnlineReference:
    """What the trainer asks, once a pack, before the model's own forward."""

    copied: VisionLanguageModel | None
    """`frozen_copy` of the model at the start; None is the model itself with its adapters switched
    off."""
    has_frozen_tower: bool
    """Whether the reference's tower and the model's are the same, so that one encoding serves
    both."""
    compute_dtype: torch.dtype

    def judge(self, model: VisionLanguageModel, pack: Mapping[str, Any]) -> JudgedPack:
        """Return the pack with the reference's log-probabilities.

        Args:
            model: the one that trains, not wrapped.
            pack: its tensors, on the model's device.
        """
        if self.copied is not None:
            return self._judged(self.copied, pack)
        with adapters_off(model):
            return self._judged(model, pack)

    def _judged(self, model: VisionLanguageModel, pack: Mapping[str, Any]) -> JudgedPack:
        with evaluating(model, self.compute_dtype):
            output = model(pack=pack)
        logps = answer_logps(
            output.target_losses.float(), pack["target_groups"], len(pack["group_sizes"])
        )
        tensors = {**pack, "reference_logps": logps}
        computed = output.computed_features if self.has_frozen_tower else None
        if computed is not None:
            known = (
                []
                if pack["cached_features"] is None
                else [pack["cached_features"].to(computed.dtype)]
            )
            tensors |= {
                "tiles": pack["tiles"][:0],
                "cached_features": torch.cat([computed, *known]),
            }
        return JudgedPack(tensors=tensors, computed_features=computed)


def frozen_copy(model: VisionLanguageModel) -> VisionLanguageModel:
    """Return a copy of a model as it is, for judging alone.

    What does not train is not copied: both hold the same tensors. The copy of a model with adapters
    thus costs the adapters' memory.
    """
    shared = {
        id(value): value
        for value in chain(model.parameters(), model.buffers())
        if not value.requires_grad
    }
    return copy.deepcopy(model, shared).requires_grad_(False).eval()
