"""A pack: examples laid end to end, one flat sequence with no padding; the unit that one forward pass consumes.

Everything that the forward pass and the loss need to know of its shape is found here, by the loader: a step never asks
the device for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from smolvlm.records import SkippedRow


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack:
    """One flat sequence of whole examples, as tensors."""

    input_ids: Int[Tensor, " seq"]
    position_ids: Int[Tensor, " seq"]
    scope_end: Int[Tensor, " seq"]
    """Query q sees key k <=> k <= q < scope_end[k]."""
    attention: Any
    """The `AttentionPlan` of `scope_end` for the device that the pack goes to; None where nobody planned it."""
    image_places: Int[Tensor, " image_token"]
    """Positions of the image tokens, whose embeddings are the slots' features."""
    predict_from: Int[Tensor, " target"]
    """Position whose hidden state predicts the target."""
    target_ids: Int[Tensor, " target"]
    target_weights: Float[Tensor, " target"]
    target_sources: Int[Tensor, " target"]
    """Index into the dataset's list of source names."""
    target_groups: Int[Tensor, " target"]
    """Which answer of the pack each target belongs to: a row's, or of preference row i 2 i (better) and 2 i + 1."""
    group_sizes: Int[Tensor, " group"]
    """Targets of each answer; each has at least one."""
    reference_logps: Float[Tensor, " group"] | None
    """Each answer's summed log-probability under the reference; None where there is none."""
    tiles: UInt8[Tensor, "tile 3 side side"]
    """Distinct tiles whose features are still to be computed."""
    tile_keys: tuple[bytes, ...]
    """Content key of each of `tiles`; the vision cache stores their features under it."""
    cached_features: Float[Tensor, "cached patches width"] | None
    """Features found in the vision cache; None when there are none."""
    slot_tiles: Int[Tensor, " shown"]
    """The tiles of the image slots, in sequence order: rows of `tiles`, or beyond them of `cached_features`."""
    slot_sizes: Int[Tensor, " slot"] | None
    """How many of `slot_tiles` each slot shows the mean of; None where each shows one tile."""
    where: tuple[str, ...]
    """`file:row` of each conversation."""
    budget_tokens: int
    """The token budget it was packed for; its fill is seq / budget_tokens."""
    skipped: tuple[SkippedRow, ...]
    """Rows that the plan put here and that could not be decoded, under `on_bad_sample: skip`."""

    @property
    def num_groups(self) -> int:
        """Answers in the pack."""
        return len(self.group_sizes)

    def model_tensors(self) -> dict[str, Any]:
        """Return what the model's pack forward reads, by name: tensors, None, and the attention plan."""
        return {name: getattr(self, name) for name in MODEL_TENSORS}

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors that the model's pack forward reads, the attention plan's among them."""
        planned = () if self.attention is None else self.attention.tensors()
        return (*planned, *(value for value in self.model_tensors().values() if isinstance(value, Tensor)))


MODEL_TENSORS = (
    "input_ids",
    "position_ids",
    "scope_end",
    "attention",
    "image_places",
    "predict_from",
    "target_ids",
    "target_weights",
    "target_groups",
    "group_sizes",
    "reference_logps",
    "tiles",
    "cached_features",
    "slot_tiles",
    "slot_sizes",
)


def on_device(inputs: Mapping[str, Any], device: torch.device | str, *, non_blocking: bool = False) -> dict[str, Any]:
    """Return a pack's model inputs on a device."""
    return {
        name: None if value is None else value.to(device, non_blocking=non_blocking) for name, value in inputs.items()
    }
