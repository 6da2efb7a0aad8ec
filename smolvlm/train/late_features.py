"""A pack's tiles looked up once more, right before they would be computed.

In: a pack as a loader worker made it, and the vision cache. Out: the pack with the features that
were kept since. Workers are packs ahead of the step: a picture that comes up in two packs they
would have computed twice, and so would two ranks, or two runs that share a cache. What is found
costs a read; what is not, some microseconds.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from smolvlm.datasets.packing.tiles import ReadFeatures
from smolvlm.train.batch import PackInfo


def with_late_features(
    pack: Mapping[str, Any], info: PackInfo, read_features: ReadFeatures
) -> tuple[Mapping[str, Any], PackInfo]:
    """Return a pack without the tiles whose features the cache has by now, but with these.

    Args:
        pack: its tensors, on the model's device; one that several ranks hold together, and have
            shared out already, stays as it is.
        info: of the pack.
        read_features: asks the cache.
    """
    if not info.tile_keys or pack.get("context") is not None:
        return pack, info
    found = read_features(info.tile_keys)
    late = [features for features in found if features is not None]
    if not late:
        return pack, info
    tiles, cached, slot_tiles = pack["tiles"], pack["cached_features"], pack["slot_tiles"]
    left = [place for place, features in enumerate(found) if features is None]
    if left:  # a step that needs no tile needs no padding either
        left += range(len(found), len(tiles))
    dropped = () if left else range(len(found), len(tiles))
    late_places = [place for place, features in enumerate(found) if features is not None]
    num_cached = 0 if cached is None else len(cached)
    moved = torch.empty(len(tiles) + num_cached, dtype=torch.long)
    order = [*left, *range(len(tiles), len(moved)), *late_places, *dropped]
    moved[order] = torch.arange(len(moved))
    parts = [*([] if cached is None else [cached]), _on(torch.stack(late), tiles.device)]
    changed = {
        "tiles": tiles.index_select(0, _on(torch.tensor(left, dtype=torch.long), tiles.device)),
        "cached_features": torch.cat(parts),
        "slot_tiles": _on(moved, slot_tiles.device).index_select(0, slot_tiles),
    }
    keys = tuple(info.tile_keys[place] for place in left if place < len(found))
    return {**pack, **changed}, replace(info, tile_keys=keys, num_computed_tiles=len(keys))


def _on(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor of the CPU to a device without waiting."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
