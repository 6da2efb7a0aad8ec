"""Epochs planned to the last token: which rows form which packs, in which optimizer step.

In: lengths, budget, seed. Out: a `Plan`, a pure function of these: no file, rank or worker has a say. Every row stands
in an epoch exactly once. The number of steps is exact, so the progress bar and the schedule are true and resuming is a
matter of one counter. Rows that begin with the same pictures become trees of at most `max_branches`; samples are laid
into packs by best fit under two budgets, tokens and tiles (`best_fit.py`).

Plans of millions of rows are kept as columns, some ten bytes a row and epoch; a `PlannedPack` is made when it is asked
for.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import overload

import numpy as np
from jaxtyping import Float32, Int32, Int64

from smolvlm.datasets.best_fit import SampleTable, best_fit, gather_trees, joined_starts, spread, starts_of
from smolvlm.datasets.lengths import Budget, LengthTable

Rows = tuple[int, ...]
"""Row numbers of one sample: one conversation, or the branches of a tree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedPack:
    """A pack before any text or pixel is touched."""

    samples: tuple[Rows, ...]
    num_tokens: int
    num_tiles: int


EMPTY_PACK = PlannedPack(samples=(), num_tokens=0, num_tiles=0)
"""Fills the last step of an epoch where packs run out: every rank takes part in every step."""


class PlannedPacks(Sequence[PlannedPack]):
    """Many packs as columns."""

    def __init__(
        self,
        *,
        rows: Int32[np.ndarray, " row"],
        sample_starts: Int64[np.ndarray, " sample+1"],
        pack_starts: Int64[np.ndarray, " pack+1"],
        num_tokens: Int32[np.ndarray, " pack"],
        num_tiles: Int32[np.ndarray, " pack"],
    ) -> None:
        """
        Args:
            rows: row numbers, sample after sample.
            sample_starts: sample s is `rows[sample_starts[s] : sample_starts[s + 1]]`.
            pack_starts: pack p holds samples pack_starts[p] to pack_starts[p + 1].
            num_tokens, num_tiles: of each pack.
        """
        self._rows = rows
        self._sample_starts = sample_starts
        self._pack_starts = pack_starts
        self.num_tokens = num_tokens
        self.num_tiles = num_tiles

    @classmethod
    def of(cls, packs: Iterable[PlannedPack]) -> "PlannedPacks":
        """Turn packs into columns."""
        given = list(packs)
        samples = [rows for pack in given for rows in pack.samples]
        return cls(
            rows=np.array([row for rows in samples for row in rows], np.int32),
            sample_starts=np.cumsum([0, *map(len, samples)]),
            pack_starts=np.cumsum([0, *(len(pack.samples) for pack in given)]),
            num_tokens=np.array([pack.num_tokens for pack in given], np.int32),
            num_tiles=np.array([pack.num_tiles for pack in given], np.int32),
        )

    @classmethod
    def joined(cls, parts: Sequence["PlannedPacks"]) -> "PlannedPacks":
        """Return the packs of all parts, one after the other."""
        if len(parts) == 1:
            return parts[0]
        empty = np.zeros(0, np.int32)
        return cls(
            rows=np.concatenate([empty, *(part._rows for part in parts)]),
            sample_starts=joined_starts([part._sample_starts for part in parts]),
            pack_starts=joined_starts([part._pack_starts for part in parts]),
            num_tokens=np.concatenate([empty, *(part.num_tokens for part in parts)]),
            num_tiles=np.concatenate([empty, *(part.num_tiles for part in parts)]),
        )

    def __len__(self) -> int:
        return len(self.num_tokens)

    @overload
    def __getitem__(self, index: int) -> PlannedPack: ...
    @overload
    def __getitem__(self, index: slice) -> "PlannedPacks": ...
    def __getitem__(self, index: int | slice) -> "PlannedPack | PlannedPacks":
        if isinstance(index, slice):
            return self.reordered(np.arange(len(self))[index])
        number = range(len(self))[index]
        begin, end = self._pack_starts[number], self._pack_starts[number + 1]
        starts = self._sample_starts[begin : end + 1].tolist()
        rows = self._rows[starts[0] : starts[-1]].tolist()
        return PlannedPack(
            samples=tuple(tuple(rows[first - starts[0] : last - starts[0]]) for first, last in pairwise(starts)),
            num_tokens=int(self.num_tokens[number]),
            num_tiles=int(self.num_tiles[number]),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlannedPacks) and self.digest() == other.digest()

    __hash__ = None  # pyright: ignore[reportAssignmentType] - columns, compared by content

    def reordered(self, order: Int64[np.ndarray, " chosen"]) -> "PlannedPacks":
        """Return some of the packs, in another order; -1 is an empty one."""
        is_empty = order < 0
        sizes = np.where(is_empty, 0, np.diff(self._pack_starts)[order] if len(self) else 0)
        samples = spread(self._pack_starts[order], sizes)
        sample_sizes = np.diff(self._sample_starts)[samples]
        return PlannedPacks(
            rows=self._rows[spread(self._sample_starts[samples], sample_sizes)],
            sample_starts=starts_of(sample_sizes),
            pack_starts=starts_of(sizes),
            num_tokens=np.where(is_empty, 0, self.num_tokens[order] if len(self) else 0).astype(np.int32),
            num_tiles=np.where(is_empty, 0, self.num_tiles[order] if len(self) else 0).astype(np.int32),
        )

    @property
    def num_samples(self) -> Int64[np.ndarray, " pack"]:
        """Samples in each pack."""
        return np.diff(self._pack_starts)

    @property
    def num_rows(self) -> int:
        """Rows in all packs together."""
        return len(self._rows)

    def digest(self) -> str:
        """Return a digest of which rows meet in which pack."""
        made = blake2b(digest_size=16)
        for column in (self._rows, self._sample_starts, self._pack_starts):
            made.update(np.ascontiguousarray(column, np.int64).tobytes())
        return made.hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All steps of a training run: step s trains on packs [s * packs_per_step, (s + 1) * packs_per_step)."""

    packs: PlannedPacks
    packs_per_step: int
    epoch_ends: tuple[int, ...]
    """Step after which each epoch ends; the last may be cut short by `max_steps` or a fraction of an epoch."""
    budget: Budget
    last_epoch_steps: int = 0
    """Steps of the last epoch uncut, where it is cut short."""

    @property
    def num_steps(self) -> int:
        return len(self.packs) // self.packs_per_step

    def epoch_at(self, step: int) -> float:
        """Return how many epochs are done after so many steps; an epoch cut short is never done to the end."""
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
    lengths: LengthTable, settings: PlanSettings, *, num_epochs: float = 1.0, max_steps: int | None = None
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
        own = plan_epoch(lengths, settings, epoch=len(epochs))
        last_epoch_steps = steps = -(-len(own) // per_step)
        if max_steps is not None:
            steps = min(steps, max_steps - done)
        elif num_epochs - len(epochs) < 1:
            steps = max(1, round((num_epochs - len(epochs)) * steps))
        order = np.arange(steps * per_step)
        epochs.append(own.reordered(np.where(order < len(own), order, -1)))
        done += steps
        ends.append(done)
    return Plan(
        packs=PlannedPacks.joined(epochs),
        packs_per_step=per_step,
        epoch_ends=tuple(ends),
        budget=settings.budget,
        last_epoch_steps=last_epoch_steps,
    )


def plan_epoch(lengths: LengthTable, settings: PlanSettings, *, epoch: int) -> PlannedPacks:
    """Plan one epoch: every row as often as `repeats` says, in packs within the budget, drawn from (seed, epoch)."""
    random = np.random.default_rng([settings.seed, epoch])
    samples = SampleTable.joined(
        gather_samples(
            order,
            lengths,
            budget=settings.budget,
            max_branches=settings.max_branches if settings.share_media else 1,
        )
        for order in _passes(lengths.repeats, random)
    )
    packs = fill_packs(samples.reordered(random.permutation(len(samples))), budget=settings.budget)
    return packs.reordered(random.permutation(len(packs)))


def _passes(
    repeats: Float32[np.ndarray, " row"], random: np.random.Generator
) -> Iterator[Int64[np.ndarray, " chosen"]]:
    """Yield the rows of an epoch, shuffled, each at most once in each pass: a row and its copy never share a tree.

    Of rows that are seen 2.25 times a quarter is drawn into the third pass; equal repeats are drawn from together.
    """
    for number in range(int(np.ceil(repeats.max(initial=0.0)))):
        chosen = [np.flatnonzero(repeats >= number + 1).astype(np.int32)]
        for partial in np.unique(repeats[(repeats > number) & (repeats < number + 1)]):
            rows = np.flatnonzero(repeats == partial).astype(np.int32)
            chosen.append(random.permutation(rows)[: round(float(partial - number) * len(rows))])
        yield random.permutation(np.concatenate(chosen))


def gather_samples(
    order: Int64[np.ndarray, " row"], lengths: LengthTable, *, budget: Budget, max_branches: int
) -> SampleTable:
    """Group rows into samples: trees of rows that begin with the same pictures, every other row alone."""
    return gather_trees(
        order,
        tokens=lengths.num_tokens,
        tiles=lengths.num_tiles,
        prefix_tokens=lengths.prefix_tokens,
        prefix_tiles=lengths.prefix_tiles,
        group=lengths.prefix_group,
        max_tokens=budget.max_tokens,
        max_tiles=budget.max_tiles,
        max_branches=max_branches,
    )


def fill_packs(samples: SampleTable, *, budget: Budget) -> PlannedPacks:
    """Lay samples into packs by best fit."""
    pack_of = best_fit(samples.num_tokens, samples.num_tiles, max_tokens=budget.max_tokens, max_tiles=budget.max_tiles)
    num_packs = int(pack_of.max(initial=-1)) + 1
    laid = samples.reordered(np.argsort(pack_of, kind="stable"))
    return PlannedPacks(
        rows=laid.rows,
        sample_starts=laid.starts,
        pack_starts=starts_of(np.bincount(pack_of, minlength=num_packs)),
        num_tokens=np.bincount(pack_of, samples.num_tokens, num_packs).astype(np.int32),
        num_tiles=np.bincount(pack_of, samples.num_tiles, num_packs).astype(np.int32),
    )


def sample_size(rows: Rows, lengths: LengthTable) -> tuple[int, int]:
    """Return (tokens, tiles) of one sample: a tree's shared beginning counts once."""
    own = np.array(rows)
    more, first = len(rows) - 1, rows[0]
    return (
        int(lengths.num_tokens[own].sum() - more * lengths.prefix_tokens[first]),
        int(lengths.num_tiles[own].sum() - more * lengths.prefix_tiles[first]),
    )


def deal_to_ranks(
    plan: Plan, *, num_ranks: int, cost_per_token: float, cost_per_tile: float
) -> Int64[np.ndarray, " pack"]:
    """Return the order in which pack numbers are handed out so that each step's ranks finish together.

    The loader gives pack i of a step to rank i % num_ranks. Which packs a step holds never changes, only their order
    within it; packs are dealt dearest first, each to the rank with the least to do that still has a place.
    """
    order = np.arange(len(plan.packs))
    if num_ranks == 1:
        return order
    places = plan.packs_per_step // num_ranks
    costs = (plan.packs.num_tokens * cost_per_token + plan.packs.num_tiles * cost_per_tile).tolist()
    for start in range(0, len(order), plan.packs_per_step):
        hands: list[list[int]] = [[] for _ in range(num_ranks)]
        loads = [0.0] * num_ranks
        for number in sorted(range(start, start + plan.packs_per_step), key=lambda own: -costs[own]):
            rank = min((r for r in range(num_ranks) if len(hands[r]) < places), key=lambda r: loads[r])
            hands[rank].append(number)
            loads[rank] += costs[number]
        order[start : start + plan.packs_per_step] = [
            hands[rank][turn] for turn in range(places) for rank in range(num_ranks)
        ]
    return order


def imbalance(plan: Plan, order: Int64[np.ndarray, " pack"], *, num_ranks: int, costs: tuple[float, float]) -> float:
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
