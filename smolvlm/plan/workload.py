"""What a run goes through: its packs by size, and the shapes of a few of them.

In: planned rows. Out: a `Workload`: counts, what each pack holds, and the packs that are looked at
closely: the largest in tokens, in tiles and in learned tokens, which decide memory, and two of
middling cost, which decide time. Their rows are read; no picture is decoded.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from smolvlm.config.schema import RunConfig
from smolvlm.datasets.builder import PlannedData
from smolvlm.datasets.dataset import PackDataset
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.tile_use import TileUse
from smolvlm.plan.pack_shape import PackShape, shape_of
from smolvlm.train.cache_worth import tile_use_of
from smolvlm.train.flops import ComputeCost

TYPICAL = (0.3, 0.7)
"""Which packs stand for all in time, as quantiles of their cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """All packs of a run, in order."""

    num_tokens: Int64[np.ndarray, " pack"]
    num_tiles: Int64[np.ndarray, " pack"]
    num_targets: Int64[np.ndarray, " pack"]
    packs_per_step: int
    first_epoch_packs: int
    """How many of them come before any tile is seen again."""
    num_rows: int
    num_skipped: int
    shapes: Mapping[int, PackShape]
    """Of some packs, by number."""
    largest: tuple[int, ...]
    typical: tuple[int, ...]
    tile_use: TileUse | None = None
    """How often tiles are shown; None where no rows are known."""

    @property
    def num_steps(self) -> int:
        return len(self.num_tokens) // self.packs_per_step

    @property
    def num_packs(self) -> int:
        """Packs that hold anything."""
        return int((self.num_tokens > 0).sum())

    def costs(
        self, cost: ComputeCost, *, computes_tiles: bool = True
    ) -> Float64[np.ndarray, " pack"]:
        """Return the estimated FLOPs of each pack."""
        tiles = self.num_tiles if computes_tiles else 0 * self.num_tiles
        return pack_costs(cost, tokens=self.num_tokens, tiles=tiles, targets=self.num_targets)


def pack_costs(
    cost: ComputeCost,
    *,
    tokens: Int64[np.ndarray, " pack"],
    tiles: Int64[np.ndarray, " pack"],
    targets: Int64[np.ndarray, " pack"],
) -> Float64[np.ndarray, " pack"]:
    """Return the estimated FLOPs of packs of these sizes."""
    return cost.per_token * tokens + cost.per_tile * tiles + cost.per_target * targets


def workload_of(
    config: RunConfig, prompt: PromptSettings, planned: PlannedData, cost: ComputeCost
) -> Workload:
    """Return what a run goes through.

    Args:
        config: the run's settings.
        prompt: of its checkpoint.
        planned: its rows and steps.
        cost: of a token, a tile and a target, to tell which packs are typical.

    Raises:
        SampleError: a row changed since it was measured.
    """
    plan, lengths = planned.plan, planned.measured.lengths
    packs = plan.packs
    learned = lengths.num_supervised_tokens
    tokens, tiles = packs.num_tokens.astype(np.int64), packs.num_tiles.astype(np.int64)
    targets = np.array(
        [sum(int(learned[list(rows)].sum()) for rows in pack.samples) for pack in packs], np.int64
    )
    costs = pack_costs(cost, tokens=tokens, tiles=tiles, targets=targets)
    largest = tuple(dict.fromkeys(int(size.argmax()) for size in (tokens, tiles, targets)))
    typical = _typical(costs, tokens)
    dataset = PackDataset(
        planned.measured,
        plan,
        encoder=prompt.encoder(loss_weighting=config.data.loss_weighting),
        settings=prompt.media,
    )
    return Workload(
        num_tokens=tokens,
        num_tiles=tiles,
        num_targets=targets,
        packs_per_step=plan.packs_per_step,
        first_epoch_packs=(plan.epoch_ends[0] if plan.epoch_ends else 0) * plan.packs_per_step,
        num_rows=len(lengths),
        num_skipped=len(planned.skipped),
        shapes={
            number: shape_of([dataset.example(rows) for rows in packs[number].samples])
            for number in dict.fromkeys((*largest, *typical))
        },
        largest=largest,
        typical=typical,
        tile_use=tile_use_of(config.train, planned),
    )


def synthetic_workload(shape: PackShape, *, num_packs: int, packs_per_step: int) -> Workload:
    """Return a run whose packs are all alike."""
    ones = np.ones(num_packs, np.int64)
    return Workload(
        num_tokens=ones * shape.num_tokens,
        num_tiles=ones * shape.num_tiles,
        num_targets=ones * shape.num_targets,
        packs_per_step=packs_per_step,
        first_epoch_packs=num_packs,
        num_rows=num_packs * shape.num_groups,
        num_skipped=0,
        shapes={0: shape},
        largest=(0,),
        typical=(0,),
    )


def _typical(
    costs: Float64[np.ndarray, " pack"], tokens: Int64[np.ndarray, " pack"]
) -> tuple[int, ...]:
    """Return the packs at some quantiles of the cost, empty ones left out."""
    used = np.flatnonzero(tokens)
    order = used[np.argsort(costs[used], kind="stable")]
    places = (round(share * (len(order) - 1)) for share in TYPICAL)
    return tuple(dict.fromkeys(int(order[place]) for place in places))
