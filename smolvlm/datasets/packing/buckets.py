"""Packs padded to few sizes, so that the shapes of a step repeat.

In: a pack. Out: the same pack with its axes rounded up: tokens, targets, tiles, cached features and
image slots. A GPU then meets shapes that it knows: memory is found again, and what is compiled or
recorded for a shape serves again. A CPU gains nothing, so there packs stay as they are.

Padding changes no loss and no gradient by more than the last bits, whatever is trained:

- a token of padding is seen by itself alone, and no target is predicted from it but padding;
- a target of padding has weight 0, and belongs to the answer behind the last one, which
  `answer_logps` leaves out;
- a tile of padding is black, has no key in the vision cache, and is shown by no slot of a row;
- an image slot of padding shows the first tile of the pack, in the last token of padding.

So gradients arrive there as zeros. At least one token is padding, which the others need.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from smolvlm.datasets.packing.pack import Pack
from smolvlm.model.attention.plan import PlanAttention

SIZES_PER_OCTAVE = 8
"""Sizes between a power of two and the next: padding is at most an eighth of an axis, a sixteenth
on average."""
MIN_TOKENS = 128
"""Tokens come in multiples of it, the block of the GPU's attention kernel."""
MIN_TARGETS = 64
"""Targets come in multiples of it."""


def rounded_up(count: int, *, multiple: int = 1) -> int:
    """Return the smallest size of an axis that holds so many; 0 for 0.

    Up to 16 each number is its own size, up to 32 each second, up to 64 each fourth, and so on.

    Args:
        count: at least 0.
        multiple: a power of two that every size is a multiple of.
    """
    octave = max(count - 1, 0).bit_length() - 1
    step = max(multiple, (1 << max(octave, 0)) // SIZES_PER_OCTAVE, 1)
    return -(-count // step) * step


@dataclass(frozen=True, kw_only=True, slots=True)
class PackBuckets:
    """Pads packs; handed to loader workers."""

    pad_id: int
    """Token that stands for nothing."""
    plan_attention: PlanAttention
    """For the device that the packs go to."""

    def __call__(self, pack: Pack) -> Pack:
        """Return a pack that has been padded, its attention planned."""
        padded = _with_tokens(pack, pad_id=self.pad_id)
        padded = _with_targets(padded)
        if len(pack.slot_tiles):
            padded = _with_slots(_with_tiles(padded))
        return replace(padded, attention=self.plan_attention(padded.scope_end.numpy()))


def _with_tokens(pack: Pack, *, pad_id: int) -> Pack:
    """Return a pack with tokens of padding, one at least."""
    count = len(pack.input_ids)
    # A full pack grows by one block, not by an eighth.
    full = -(-(pack.budget_tokens + 1) // MIN_TOKENS) * MIN_TOKENS
    size = rounded_up(count + 1, multiple=MIN_TOKENS)
    size = min(size, full) if count < full else size
    more = size - count
    return replace(
        pack,
        input_ids=pad(pack.input_ids, (0, more), value=pad_id),
        position_ids=pad(pack.position_ids, (0, more)),
        scope_end=torch.cat([pack.scope_end, torch.arange(count, size) + 1]),
        padding=replace(pack.padding, num_tokens=more),
    )


def _with_targets(pack: Pack) -> Pack:
    """Return a pack with targets of padding, predicted from its last token."""
    count = len(pack.target_ids)
    more = rounded_up(count, multiple=MIN_TARGETS) - count
    return replace(
        pack,
        predict_from=pad(pack.predict_from, (0, more), value=len(pack.input_ids) - 1),
        target_ids=pad(pack.target_ids, (0, more)),
        target_weights=pad(pack.target_weights, (0, more)),
        target_groups=pad(pack.target_groups, (0, more), value=pack.num_groups),
        target_sources=pad(pack.target_sources, (0, more)),
        padding=replace(pack.padding, num_targets=more),
    )


def _with_tiles(pack: Pack) -> Pack:
    """Return a pack with tiles and cached features of padding; slots find theirs behind them."""
    num_tiles, cached = len(pack.tiles), pack.cached_features
    more_tiles = rounded_up(num_tiles) - num_tiles
    more_cached = 0 if cached is None else rounded_up(len(cached)) - len(cached)
    is_cached = pack.slot_tiles >= num_tiles
    return replace(
        pack,
        tiles=_with_rows(pack.tiles, more_tiles),
        cached_features=None if cached is None else _with_rows(cached, more_cached),
        slot_tiles=pack.slot_tiles + is_cached * more_tiles,
        padding=replace(pack.padding, num_tiles=more_tiles, num_cached=more_cached),
    )


def _with_slots(pack: Pack) -> Pack:
    """Return a pack with image slots of padding, all in its last token."""
    shown = len(pack.slot_tiles)
    num_slots = shown if pack.slot_sizes is None else len(pack.slot_sizes)
    per_slot = len(pack.image_places) // num_slots
    if pack.slot_sizes is None:
        slot_sizes = None
        more_slots = more_shown = rounded_up(shown) - shown
    else:
        # One slot at least, which takes what rounds the frames shown up; an empty one has no mean.
        more_slots = rounded_up(num_slots + 1) - num_slots
        more_shown = rounded_up(shown + more_slots) - shown
        more_sizes = torch.ones(more_slots, dtype=torch.long)
        more_sizes[-1] += more_shown - more_slots
        slot_sizes = torch.cat([pack.slot_sizes, more_sizes])
    return replace(
        pack,
        slot_tiles=pad(pack.slot_tiles, (0, more_shown)),
        slot_sizes=slot_sizes,
        image_places=pad(
            pack.image_places, (0, more_slots * per_slot), value=len(pack.input_ids) - 1
        ),
    )


def _with_rows(rows: Tensor, more: int) -> Tensor:
    """Return a tensor with so many rows of zeros behind its own."""
    return torch.cat([rows, rows.new_zeros(more, *rows.shape[1:])]) if more else rows
