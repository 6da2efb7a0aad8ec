"""Epochs planned to the last token: which rows form which packs, in which optimizer step.

In: lengths, budget, seed. Out: a `Plan`, a pure function of these: no file, rank or worker has a
say. Every row stands in an epoch exactly once. The number of steps is exact, so the progress bar
and the schedule are true and resuming is a matter of one counter. Rows that begin with the same
pictures become trees of at most `max_branches` (`trees.py`); samples are laid into packs by best
fit under two budgets, tokens and tiles (`best_fit.py`).
"""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64

from smolvlm.datasets.packing.best_fit import best_fit
from smolvlm.datasets.packing.columns import (
    PlannedPacks,
    Rows,
    SampleTable,
    taken,
    taken_runs,
    trim_memory,
)
from smolvlm.datasets.packing.lengths import Budget, LengthTable
from smolvlm.datasets.packing.trees import gather_trees


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All steps of a training run.

    Step s trains on packs [s * packs_per_step, (s + 1) * packs_per_step).
    """

    packs: PlannedPacks
    packs_per_step: int
    epoch_ends: tuple[int, ...]
    """Step after which each epoch ends; the last may be cut short by `max_steps` or a fraction of
    an epoch."""
    budget: Budget
    last_epoch_steps: int = 0
    """Steps of the last epoch uncut, where it is cut short."""

    @property
    def num_steps(self) -> int:
        return len(self.packs) // self.packs_per_step

    def epoch_at(self, step: int) -> float:
        """Return how many epochs are done after so many steps; one cut short never is."""
        if not self.epoch_ends:
            return 0.0
        last = len(self.epoch_ends) - 1
        epoch = min(bisect_left(self.epoch_ends, step), last)
        begin, end = self.epoch_ends[epoch - 1] if epoch else 0, self.epoch_ends[epoch]
        uncut_steps = max(end - begin, self.last_epoch_steps if epoch == last else 0)
        return epoch + (min(step, end) - begin) / uncut_steps

    @property
    def num_used_packs(self) -> int:
        """Packs that hold anything."""
        return int((self.packs.num_samples > 0).sum())

    @property
    def token_fill(self) -> float:
        """Share of the token budget that is used, over all packs that hold anything."""
        used = self.num_used_packs
        return float(self.packs.num_tokens.sum()) / (used * self.budget.max_tokens) if used else 0.0

    @property
    def tile_fill(self) -> float:
        """Share of the tile budget that is used."""
        used = self.num_used_packs
        return float(self.packs.num_tiles.sum()) / (used * self.budget.max_tiles) if used else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanSettings:
    """How epochs are planned."""

    budget: Budget
    packs_per_step: int
    share_media: bool
    max_branches: int
    seed: int


def plan_training(
    lengths: LengthTable,
    settings: PlanSettings,
    *,
    num_epochs: float = 1.0,
    max_steps: int | None = None,
) -> Plan:
    """Plan every step of a run.

    Args:
        lengths: of all rows.
        settings: budgets, sharing and seed.
        num_epochs: how often each row is seen; a fraction cuts the last epoch short.
        max_steps: stop after so many steps, however many epochs that takes; overrides `num_epochs`.
    """
    epochs: list[PlannedPacks] = []
    ends: list[int] = []
    per_step = settings.packs_per_step
    last_epoch_steps = done = 0
    while len(lengths) and (len(epochs) < num_epochs if max_steps is None else done < max_steps):
        epoch = plan_epoch(lengths, settings, epoch=len(epochs))
        last_epoch_steps = steps = -(-len(epoch) // per_step)
        if max_steps is not None:
            steps = min(steps, max_steps - done)
        elif num_epochs - len(epochs) < 1:
            steps = max(1, round((num_epochs - len(epochs)) * steps))
        order = np.arange(steps * per_step)
        epochs.append(epoch.reordered(np.where(order < len(epoch), order, -1)))
        del epoch
        done += steps
        ends.append(done)
        trim_memory()
    return Plan(
        packs=PlannedPacks.joined(epochs),
        packs_per_step=per_step,
        epoch_ends=tuple(ends),
        budget=settings.budget,
        last_epoch_steps=last_epoch_steps,
    )


def plan_epoch(lengths: LengthTable, settings: PlanSettings, *, epoch: int) -> PlannedPacks:
    """Plan one epoch, drawn from (seed, epoch): every row as often as `repeats` says."""
    random = np.random.default_rng([settings.seed, epoch])
    samples = SampleTable.joined(
        gather_trees(
            order,
            lengths,
            budget=settings.budget,
            max_branches=settings.max_branches if settings.share_media else 1,
        )
        for order in _passes(lengths.repeats, random)
    )
    samples = samples.reordered(_shuffled(np.arange(len(samples), dtype=np.int32), random))
    packs = fill_packs(samples, budget=settings.budget)
    del samples
    return packs.reordered(random.permutation(len(packs)))


def _passes(
    repeats: Float32[np.ndarray, " row"], random: np.random.Generator
) -> Iterator[Int32[np.ndarray, " chosen"]]:
    """Yield the passes of an epoch, shuffled, with each row at most once in each.

    So a row and its copy never share a tree.
    """
    for number in range(int(np.ceil(repeats.max(initial=0.0)))):
        yield _shuffled(_drawn(repeats, number, random), random)


def _drawn(
    repeats: Float32[np.ndarray, " row"], number: int, random: np.random.Generator
) -> Int32[np.ndarray, " chosen"]:
    """Return the rows of a pass.

    Of rows that are seen 2.25 times a quarter is drawn into the third pass; equal repeats are drawn
    from together.
    """
    chosen = [np.flatnonzero(repeats >= number + 1).astype(np.int32)]
    for partial in np.unique(repeats[(repeats > number) & (repeats < number + 1)]):
        rows = _shuffled(np.flatnonzero(repeats == partial).astype(np.int32), random)
        chosen.append(rows[: round(float(partial - number) * len(rows))])
    return np.concatenate(chosen) if len(chosen) > 1 else chosen[0]


def _shuffled(
    numbers: Int32[np.ndarray, " chosen"], random: np.random.Generator
) -> Int32[np.ndarray, " chosen"]:
    """Shuffle in place: `random.permutation` gives the same order in more memory."""
    random.shuffle(numbers)
    return numbers


def fill_packs(samples: SampleTable, *, budget: Budget) -> PlannedPacks:
    """Lay samples into packs by best fit."""
    order, pack_starts = _laid(samples, budget)
    rows, sample_starts = taken_runs(samples.rows, samples.starts, order)
    return PlannedPacks(
        rows=rows,
        sample_starts=sample_starts,
        pack_starts=pack_starts,
        num_tokens=_sums(taken(samples.num_tokens, order), pack_starts),
        num_tiles=_sums(taken(samples.num_tiles, order), pack_starts),
    )


def _laid(
    samples: SampleTable, budget: Budget
) -> tuple[Int32[np.ndarray, " sample"], Int32[np.ndarray, " pack+1"]]:
    """Return samples in the order of their packs, and where packs begin among them."""
    pack_of = best_fit(
        samples.num_tokens,
        samples.num_tiles,
        max_tokens=budget.max_tokens,
        max_tiles=budget.max_tiles,
    )
    order = np.argsort(pack_of, kind="stable").astype(np.int32)
    pack_of.sort()
    numbers = np.arange(pack_of.max(initial=-1) + 2, dtype=np.int32)
    return order, np.searchsorted(pack_of, numbers).astype(np.int32)


def _sums(
    sizes: Int32[np.ndarray, " sample"], starts: Int32[np.ndarray, " pack+1"]
) -> Int32[np.ndarray, " pack"]:
    """Return each pack's size; no pack is empty."""
    return (
        np.add.reduceat(sizes, starts[:-1], dtype=np.int32) if len(sizes) else np.zeros(0, np.int32)
    )


def sample_size(rows: Rows, lengths: LengthTable) -> tuple[int, int]:
    """Return (tokens, tiles) of one sample: a tree's shared beginning counts once."""
    numbers = np.array(rows)
    more, first = len(rows) - 1, rows[0]
    return (
        int(lengths.num_tokens[numbers].sum() - more * lengths.prefix_tokens[first]),
        int(lengths.num_tiles[numbers].sum() - more * lengths.prefix_tiles[first]),
    )


def deal_to_ranks(
    plan: Plan, *, num_ranks: int, cost_per_token: float, cost_per_tile: float
) -> Int64[np.ndarray, " pack"]:
    """Return the order of pack numbers in which each step's ranks finish together.

    The loader gives pack i of a step to rank i % num_ranks. Which packs a step holds never changes,
    only their order within it; packs are dealt dearest first, each to the rank with the least to do
    that still has a place.
    """
    order = np.arange(len(plan.packs))
    if num_ranks == 1:
        return order
    places = plan.packs_per_step // num_ranks
    costs = plan.packs.num_tokens * cost_per_token + plan.packs.num_tiles * cost_per_tile
    for start in range(0, len(order), plan.packs_per_step):
        step_costs = costs[start : start + plan.packs_per_step].tolist()
        hands: list[list[int]] = [[] for _ in range(num_ranks)]
        loads = [0.0] * num_ranks
        for place in sorted(range(plan.packs_per_step), key=step_costs.__getitem__, reverse=True):
            rank = min(
                (r for r in range(num_ranks) if len(hands[r]) < places), key=lambda r: loads[r]
            )
            hands[rank].append(start + place)
            loads[rank] += step_costs[place]
        order[start : start + plan.packs_per_step] = [
            hands[rank][turn] for turn in range(places) for rank in range(num_ranks)
        ]
    return order


def imbalance(
    plan: Plan, order: Int64[np.ndarray, " pack"], *, num_ranks: int, costs: tuple[float, float]
) -> float:
    """Return the share of the ranks' time that is spent waiting for the slowest, by estimated cost.

    Args:
        order: as `deal_to_ranks` gives it.
        costs: of a token and of a tile.
    """
    cost = (plan.packs.num_tokens * costs[0] + plan.packs.num_tiles * costs[1])[order]
    by_step = cost.reshape(-1, plan.packs_per_step // num_ranks, num_ranks)
    if not by_step.size:
        return 0.0
    slowest = by_step.sum(axis=1).max(axis=1).sum()
    return float(1 - cost.sum() / (num_ranks * slowest)) if slowest else 0.0
