"""A pack: examples laid end to end without padding; the unit of one forward pass.

Everything that the forward pass and the loss need to know of its shape is found here, by the
loader: a step never asks the device for it. The fields are the one list of what a pack holds: what
moves, what is shared and what a token takes in memory follow from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_args

import torch
from jaxtyping import Int64
from torch import Tensor

from smolvlm.datasets.packing.load_times import LoadTimes
from smolvlm.datasets.packing.row_digests import MediaState
from smolvlm.model.pack_tensors import PackTensors
from smolvlm.records import SkippedRow

MODEL_TENSORS = tuple(each.name for each in fields(PackTensors))


@dataclass(frozen=True, kw_only=True, slots=True)
class Padding:
    """How much at the end of a pack's axes belongs to no row (`buckets.py`)."""

    num_tokens: int = 0
    num_targets: int = 0
    num_tiles: int = 0
    """Of the tiles still to be encoded."""
    num_cached: int = 0
    """Of the cached features."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pack(PackTensors):
    """What the model reads, and what else is known of it."""

    target_sources: Int64[Tensor, " target"]
    """Index into the dataset's list of source names."""
    tile_keys: tuple[bytes, ...]
    """Content key of each of `tiles` that is no padding; the vision cache stores its features under
    it."""
    where: tuple[str, ...]
    """`file:row` of each conversation."""
    media_states: tuple[MediaState, ...]
    """Of each conversation that names files: what they were when they were read."""
    budget_tokens: int
    """The token budget it was packed for; its fill is seq / budget_tokens."""
    skipped: tuple[SkippedRow, ...]
    """Rows that the plan put here and that could not be decoded, under `on_bad_sample: skip`."""
    times: LoadTimes = field(default_factory=LoadTimes, compare=False)
    """What making it took."""
    padding: Padding = Padding()
    """What of it is counted nowhere: neither in tokens a second nor in any mean."""
    shared_where: tuple[str, ...] = ()
    """`where` of the whole pack on each of the ranks that hold it together; the first alone counts
    its rows."""

    @property
    def num_tokens(self) -> int:
        """Tokens of rows: none of a pack without rows, which holds a token of filling."""
        if self.context is not None:
            return self.context.num_counted
        return len(self.input_ids) - self.padding.num_tokens if self.where else 0

    @property
    def num_targets(self) -> int:
        """Tokens that are learned."""
        return len(self.target_ids) - self.padding.num_targets

    @property
    def num_computed_tiles(self) -> int:
        """Distinct tiles whose features are still to be computed."""
        return len(self.tiles) - self.padding.num_tiles

    @property
    def num_cached_tiles(self) -> int:
        """Distinct tiles whose features the vision cache had."""
        cached = 0 if self.cached_features is None else len(self.cached_features)
        return cached - self.padding.num_cached

    @property
    def num_groups(self) -> int:
        """Answers in the pack."""
        return len(self.group_sizes)

    def model_tensors(self) -> dict[str, Any]:
        """Return by name what the model's forward reads: tensors, None, and the attention plan."""
        return {name: getattr(self, name) for name in MODEL_TENSORS}

    def tensors(self) -> tuple[Tensor, ...]:
        """Return all tensors that the model's forward reads, the attention plan's among them."""
        planned = () if self.attention is None else self.attention.tensors()
        shared = () if self.context is None else self.context.tensors()
        return (
            *planned,
            *shared,
            *(value for value in self.model_tensors().values() if isinstance(value, Tensor)),
        )


def _bytes_along(axis: str) -> int:
    """Return what all tensors of a pack that have this axis alone take for one place in it."""
    types: list[Any] = [
        kind for each in fields(Pack) for kind in (get_args(each.type) or (each.type,))
    ]
    dtypes = [kind.dtypes[0] for kind in types if getattr(kind, "dim_str", None) == axis]
    return sum(getattr(torch, dtype).itemsize for dtype in dtypes)


BYTES_PER_TOKEN = sum(map(_bytes_along, ("seq", "target", "group")))
"""The most that a token takes in all tensors of a pack together: supervised, and an answer by
itself. An image token, which is no target, takes less."""


def on_device(
    inputs: Mapping[str, Any], device: torch.device | str, *, non_blocking: bool = False
) -> dict[str, Any]:
    """Return a pack's model inputs on a device."""
    return {
        name: None if value is None else value.to(device, non_blocking=non_blocking)
        for name, value in inputs.items()
    }
