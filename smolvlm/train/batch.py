"""What the loader hands to the trainer: a pack as the model's tensors, with what is logged about
it; or an error."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from smolvlm.datasets.packing.load_times import LoadTimes
from smolvlm.datasets.packing.pack import Pack, on_device
from smolvlm.datasets.packing.row_digests import MediaState
from smolvlm.errors import SmolVLMError
from smolvlm.records import SkippedRow


@dataclass(frozen=True, kw_only=True, slots=True)
class PackInfo:
    """What is known of a pack besides its tensors."""

    tile_keys: tuple[bytes, ...]
    where: tuple[str, ...]
    rows: tuple[str, ...]
    """`where` of all that this rank works on: of a pack that several ranks hold, on each."""
    media_states: tuple[MediaState, ...]
    skipped: tuple[SkippedRow, ...]
    num_tokens: int
    budget_tokens: int
    num_supervised_tokens: int
    target_weight: float
    """Sum of the targets' weights."""
    num_groups: int
    """Answers: one for each branch of each row."""
    num_tiles: int
    """Tiles the prompt shows, each counted once, computed or cached."""
    num_computed_tiles: int
    times: LoadTimes = field(default_factory=LoadTimes, compare=False)
    """What making it took."""


class PackBatch(dict[str, Any]):
    """`{"pack": what the model reads, "info": PackInfo}`, moved to a device by `to`.

    The copies never wait, whatever is asked: accelerate (1.15) forgets `non_blocking` where a
    resumed run skips the packs that it has trained on.
    """

    def to(self, device: torch.device | str, non_blocking: bool = True) -> "PackBatch":  # noqa: ARG002 - accelerate's
        return PackBatch(self, pack=on_device(self["pack"], device, non_blocking=True))


def as_batch(packs: Sequence[Pack]) -> PackBatch:
    """Return a pack for the trainer: the collate function of a loader of single packs."""
    (pack,) = packs
    info = PackInfo(
        tile_keys=pack.tile_keys,
        where=pack.where,
        rows=pack.shared_where or pack.where,
        media_states=pack.media_states,
        skipped=pack.skipped,
        num_tokens=pack.num_tokens,
        budget_tokens=pack.budget_tokens if pack.where else 0,
        num_supervised_tokens=pack.num_targets,
        target_weight=float(pack.target_weights.double().sum()),
        num_groups=pack.num_groups,
        num_tiles=pack.num_computed_tiles + pack.num_cached_tiles,
        num_computed_tiles=pack.num_computed_tiles,
        times=pack.times,
    )
    return PackBatch(pack=pack.model_tensors(), info=info)


def without_worker_traceback(error: SmolVLMError) -> SmolVLMError:
    """Return an error without the loader worker's traceback, which torch puts before its text."""
    error_class, text = type(error), str(error)
    name = f"{error_class.__module__}.{error_class.__qualname__}: "
    return error_class(text.rpartition(name)[2].strip()) if text.startswith("Caught ") else error
