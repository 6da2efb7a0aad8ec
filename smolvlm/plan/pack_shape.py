"""The shape of a pack: all that memory and time of a step depend on, without a pixel or a word.

In: examples of a run's rows, or a conversation's sizes alone. Out: a `PackShape`, and from it a
pack's tensors, made on whatever "device" is current: a step over fake tensors needs no values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from smolvlm.datasets.encoding.encoded import media_identity
from smolvlm.model.attention.sdpa import plan_sdpa
from smolvlm.model.vision import tokens_per_tile
from smolvlm.protocols import VisionLanguageConfig
from smolvlm.records import Example


@dataclass(frozen=True, kw_only=True, slots=True)
class PackShape:
    """One pack."""

    scope_end: Int[np.ndarray, " seq"]
    """As in a pack; what attends to what."""
    num_targets: int
    num_groups: int
    """Answers."""
    num_tiles: int
    """Distinct tiles."""
    slot_sizes: tuple[int, ...]
    """Tiles of each image slot, in order: 1, or more where frames are averaged."""

    @property
    def num_tokens(self) -> int:
        return len(self.scope_end)


def shape_of(examples: Sequence[Example]) -> PackShape:
    """Return the shape of the pack that some examples make."""
    sizes = [len(example.input_ids) for example in examples]
    offsets = np.cumsum([0, *sizes[:-1]])
    tiles = {
        (media_identity(example.media[ref.medium]), ref.tile)
        for example in examples
        for ref in example.tiles
    }
    return PackShape(
        scope_end=np.concatenate(
            [example.scope_end + offset for example, offset in zip(examples, offsets, strict=True)]
        ),
        num_targets=sum(len(example.target_ids) for example in examples),
        num_groups=sum(len(np.unique(example.target_conversation)) for example in examples),
        num_tiles=len(tiles),
        slot_sizes=tuple(size for example in examples for size in example.slot_sizes),
    )


def shape_of_conversations(
    count: int, *, tokens: int, tiles: int = 0, targets: int, tiles_a_slot: int = 1
) -> PackShape:
    """Return the shape of a pack of equal conversations.

    Args:
        count: of conversations.
        tokens, tiles, targets: of each; no two show the same tile.
        tiles_a_slot: frames that share a slot.
    """
    full, rest = divmod(tiles, tiles_a_slot)
    slots = (*(tiles_a_slot for _ in range(full)), *([rest] if rest else []))
    return PackShape(
        scope_end=np.repeat(np.arange(1, count + 1) * tokens, tokens),
        num_targets=count * targets,
        num_groups=count,
        num_tiles=count * tiles,
        slot_sizes=slots * count,
    )


def pack_inputs(
    shape: PackShape,
    config: VisionLanguageConfig,
    *,
    cached: tuple[int, int, torch.dtype] | None = None,
    has_reference: bool = False,
) -> dict[str, Any]:
    """Return a pack of this shape as the model's forward reads it; its values mean nothing.

    Args:
        shape: of the pack.
        config: the model's.
        cached: rows, width and type of a tile's features where they come from the vision cache.
        has_reference: whether answers come with what a reference thinks of them.
    """

    def numbers(count: int) -> torch.Tensor:
        return torch.zeros(count, dtype=torch.long)

    side = config.vision_config.image_size
    shown, tokens = sum(shape.slot_sizes), tokens_per_tile(config)
    is_averaged = any(size > 1 for size in shape.slot_sizes)
    computed, features = (0 if cached else shape.num_tiles), None
    if cached and shape.num_tiles:
        rows, width, dtype = cached
        features = torch.zeros(shape.num_tiles, rows, width, dtype=dtype)
    return {
        "input_ids": numbers(shape.num_tokens),
        "position_ids": numbers(shape.num_tokens),
        "scope_end": numbers(shape.num_tokens),
        "attention": plan_sdpa(shape.scope_end),
        "image_places": numbers(len(shape.slot_sizes) * tokens),
        "predict_from": numbers(shape.num_targets),
        "target_ids": numbers(shape.num_targets),
        "target_weights": torch.ones(shape.num_targets),
        "target_groups": numbers(shape.num_targets),
        "group_sizes": numbers(shape.num_groups),
        "reference_logps": torch.zeros(shape.num_groups) if has_reference else None,
        "tiles": torch.zeros(computed, 3, side, side, dtype=torch.uint8),
        "cached_features": features,
        "slot_tiles": numbers(shown),
        "slot_sizes": numbers(len(shape.slot_sizes)) if is_averaged else None,
        "context": None,
    }
