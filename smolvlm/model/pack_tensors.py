"""What a forward over a pack reads: moving, pinning and sharing a pack go by this list.

The forward takes it as a mapping from names to values, as torch's loader, accelerate and wrapped
models pass it on.
"""

from dataclasses import dataclass

from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from smolvlm.model.attention.plan import AttentionPlan
from smolvlm.model.context_ranks.share import ContextShare


@dataclass(frozen=True, kw_only=True, slots=True)
class PackTensors:
    """One flat sequence of whole examples, as tensors."""

    input_ids: Int64[Tensor, " seq"]
    position_ids: Int64[Tensor, " seq"]
    scope_end: Int64[Tensor, " seq"]
    """Query q sees key k <=> k <= q < scope_end[k]."""
    attention: AttentionPlan | None
    """Made of `scope_end`, for the device that the pack goes to. Where it is None or missing, the
    forward makes one, for which it waits for the device."""
    image_places: Int64[Tensor, " image_token"]
    """Positions of the image tokens, whose embeddings are the slots' features."""
    predict_from: Int64[Tensor, " target"]
    """Position whose hidden state predicts the target."""
    target_ids: Int64[Tensor, " target"]
    target_weights: Float32[Tensor, " target"]
    target_groups: Int64[Tensor, " target"]
    """Which answer of the pack each target belongs to: a row's, or of preference row i 2 i (better)
    and 2 i + 1. For losses over groups, as the next two; may be missing."""
    group_sizes: Int64[Tensor, " group"]
    """Targets of each answer; each has at least one."""
    reference_logps: Float32[Tensor, " group"] | None
    """Each answer's summed log-probability under the reference; None where there is none."""
    tiles: UInt8[Tensor, "tile 3 side side"]
    """Distinct tiles whose features are still to be computed."""
    cached_features: Float[Tensor, "cached patches width"] | None
    """Features found in the vision cache; None when there are none."""
    slot_tiles: Int64[Tensor, " shown"]
    """The tiles of the image slots, in sequence order: rows of `tiles`, or beyond them of
    `cached_features`."""
    slot_sizes: Int64[Tensor, " slot"] | None
    """How many of `slot_tiles` each slot shows the mean of; None or missing where each shows one
    tile."""
    context: ContextShare | None = None
    """Of a pack that several ranks hold together: how this rank's share hangs together with the
    others'. `scope_end` counts in the whole pack then, `slot_tiles` in the features that the rank
    gets, and all else in its own tokens and tiles. None or missing where the pack is whole."""
