"""Frames that share a place in the text: one mean for each group of them.

In: the connector's features of every frame shown, and how many each image slot takes. Out: a slot's
features. Sums are taken in float32 at least, whatever type the features have; a slot of one frame
keeps its features as they are. Where no slot has more than one nobody comes here.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def slot_means(
    features: Float[Tensor, "shown tokens hidden"], slot_sizes: Int[Tensor, " slot"]
) -> Float[Tensor, "slot tokens hidden"]:
    """Return the mean of each slot's features, in float32 or the features' larger type.

    Features a, b, c with sizes 2 and 1 give (a + b) / 2 and c.

    Args:
        features: of the frames and tiles of all slots, slot after slot.
        slot_sizes: how many of them belong to each slot, each at least 1; they add up to `shown`.
    """
    numbers = torch.arange(len(slot_sizes), device=slot_sizes.device)
    # With its size given, the device is not asked how many come out.
    owners = torch.repeat_interleave(numbers, slot_sizes, output_size=len(features))
    wide = features.to(torch.promote_types(features.dtype, torch.float32))
    sums = wide.new_zeros(len(slot_sizes), *features.shape[1:]).index_add(0, owners, wide)
    return sums / slot_sizes[:, None, None]
