"""Epochs planned to the last token: which rows form which packs, in which optimizer step.

In: lengths, budget, seed. Out: a `Plan`, a pure function of these: no file, rank or worker has a say. Every row stands
in an epoch exactly once. The number of steps is exact, so the progress bar and the schedule are true and resuming is a
matter of one counter. Rows that begin with the same pictures become trees of at most `max_branches`; samples are laid
into packs by best fit under two budgets (tokens, tiles), in windows of the shuffled order so that which samples meet
in a pack stays random.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from jaxtyping import Int64

from smolvlm.datasets.lengths import Budget, LengthTable

WINDOW_SAMPLES = 2048
"""Samples sorted by size together: more fills packs better and mixes less."""
MAX_OPEN_PACKS = 512
"""Packs that wait for more samples at a time; the fullest is closed to open another."""

_NO_ROOM = np.iinfo(np.int64).max

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All steps of a training run: step s trains on packs [s * packs_per_step, (s + 1) * packs_per_step)."""

    packs: tuple[PlannedPack, ...]
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
    def token_fill(self) -> float:
        """Share of the token budget that is used, over all packs that hold anything."""
        used = [pack.num_tokens for pack in self.packs if pack.samples]
        return sum(used) / (len(used) * self.budget.max_tokens) if used else 0.0

    @property
    def tile_fill(self) -> float:
        """Share of the tile budget that is used."""
        used = [pack.num_tiles for pack in self.packs if pack.samples]
        return sum(used) / (len(used) * self.budget.max_tiles) if used else 0.0


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
    packs: list[PlannedPack] = []
    ends: list[int] = []
    per_step = settings.packs_per_step
    epoch = last_epoch_steps = 0
    while len(lengths) and (epoch < num_epochs if max_steps is None else len(packs) < max_steps * per_step):
        own = plan_epoch(lengths, settings, epoch=epoch)
        own += [EMPTY_PACK] * (-len(own) % per_step)
        last_epoch_steps = len(own) // per_step
        if max_steps is None and num_epochs - epoch < 1:
            steps = max(1, round((num_epochs - epoch) * last_epoch_steps))
            own = own[: steps * per_step]
        packs += own
        if max_steps is not None:
            del packs[max_steps * per_step :]
        ends.append(len(packs) // per_step)
        epoch += 1
    return Plan(
        packs=tuple(packs),
        packs_per_step=per_step,
        epoch_ends=tuple(ends),
        budget=settings.budget,
        last_epoch_steps=last_epoch_steps,
    )


def plan_epoch(lengths: LengthTable, settings: PlanSettings, *, epoch: int) -> list[PlannedPack]:
    """Plan one epoch: every row exactly once, in packs within the budget, order drawn from (seed, epoch)."""
    random = np.random.default_rng([settings.seed, epoch])
    order: list[int] = random.permutation(len(lengths)).tolist()
    if settings.share_media and settings.max_branches > 1:
        samples = list(gather_trees(order, lengths, budget=settings.budget, max_branches=settings.max_branches))
        samples = [samples[number] for number in random.permutation(len(samples))]
    else:
        samples = [(row,) for row in order]
    packs = fill_packs(samples, lengths, budget=settings.budget)
    return [packs[number] for number in random.permutation(len(packs))]


def sample_size(rows: Rows, lengths: LengthTable) -> tuple[int, int]:
    """Return (tokens, tiles) of one sample."""
    tokens, tiles = sample_sizes([rows], lengths)
    return int(tokens[0]), int(tiles[0])


def sample_sizes(
    samples: Sequence[Rows], lengths: LengthTable
) -> tuple[Int64[np.ndarray, " sample"], Int64[np.ndarray, " sample"]]:
    """Return (tokens, tiles) of each sample: a tree's shared beginning counts once."""
    if not samples:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows = np.fromiter(chain.from_iterable(samples), np.int64)
    branches = np.fromiter(map(len, samples), np.int64)
    first = np.cumsum(branches) - branches

    def once(whole: Int64[np.ndarray, " row"], prefix: Int64[np.ndarray, " row"]) -> Int64[np.ndarray, " sample"]:
        return np.add.reduceat(whole[rows], first) - (branches - 1) * prefix[rows[first]]

    return once(lengths.num_tokens, lengths.prefix_tokens), once(lengths.num_tiles, lengths.prefix_tiles)


def gather_trees(order: Sequence[int], lengths: LengthTable, *, budget: Budget, max_branches: int) -> Iterator[Rows]:
    """Group rows that begin with the same pictures into samples that fit the budget."""
    groups = lengths.prefix_group.tolist()
    tokens, tiles = lengths.num_tokens.tolist(), lengths.num_tiles.tolist()
    own_tokens = (lengths.num_tokens - lengths.prefix_tokens).tolist()
    own_tiles = (lengths.num_tiles - lengths.prefix_tiles).tolist()
    open_trees: dict[int, list[int]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for row in order:
        group = groups[row]
        if group < 0:
            yield (row,)
            continue
        if group in open_trees:
            grown = sizes[group][0] + own_tokens[row], sizes[group][1] + own_tiles[row]
            if grown[0] <= budget.max_tokens and grown[1] <= budget.max_tiles:
                open_trees[group].append(row)
                sizes[group] = grown
                if len(open_trees[group]) == max_branches:
                    yield tuple(open_trees.pop(group))
                continue
            yield tuple(open_trees.pop(group))
        open_trees[group] = [row]
        sizes[group] = tokens[row], tiles[row]
    yield from map(tuple, open_trees.values())


def fill_packs(samples: Sequence[Rows], lengths: LengthTable, *, budget: Budget) -> list[PlannedPack]:
    """Lay samples into packs: in each window the largest first, by the larger of their shares in the two budgets; each
    into the open pack with the least room for tokens that still holds it."""
    tokens, tiles = sample_sizes(samples, lengths)
    shares = np.maximum(tokens / budget.max_tokens, tiles / budget.max_tiles)
    packs: list[list[int]] = []
    open_packs: list[int] = []  # place -> pack number
    free_tokens = np.full(MAX_OPEN_PACKS, -1)  # by place; one not yet used holds nothing
    free_tiles = np.zeros(MAX_OPEN_PACKS, np.int64)
    for start in range(0, len(samples), WINDOW_SAMPLES):
        for sample in start + np.argsort(-shares[start : start + WINDOW_SAMPLES], kind="stable"):
            rooms = np.where((free_tokens >= tokens[sample]) & (free_tiles >= tiles[sample]), free_tokens, _NO_ROOM)
            place = int(rooms.argmin())
            if rooms[place] == _NO_ROOM:
                place = len(open_packs) if len(open_packs) < MAX_OPEN_PACKS else int(free_tokens.argmin())
                open_packs[place : place + 1] = [len(packs)]
                packs.append([])
                free_tokens[place], free_tiles[place] = budget.max_tokens, budget.max_tiles
            packs[open_packs[place]].append(int(sample))
            free_tokens[place] -= tokens[sample]
            free_tiles[place] -= tiles[sample]
    return [
        PlannedPack(
            samples=tuple(samples[sample] for sample in members),
            num_tokens=int(tokens[members].sum()),
            num_tiles=int(tiles[members].sum()),
        )
        for members in packs
    ]


def deal_to_ranks(plan: Plan, *, num_ranks: int, cost_per_token: float, cost_per_tile: float) -> tuple[int, ...]:
    """Return the order in which pack numbers are handed out so that each step's ranks finish together.

    The loader gives pack i of a step to rank i % num_ranks. Which packs a step holds never changes, only their order
    within it; packs are dealt dearest first, each to the rank with the least to do that still has a place.
    """
    order: list[int] = []
    for step in range(plan.num_steps):
        numbers = range(step * plan.packs_per_step, (step + 1) * plan.packs_per_step)
        if num_ranks == 1:
            order += numbers
            continue
        cost = {
            number: plan.packs[number].num_tokens * cost_per_token + plan.packs[number].num_tiles * cost_per_tile
            for number in numbers
        }
        hands: list[list[int]] = [[] for _ in range(num_ranks)]
        loads = [0.0] * num_ranks
        places = plan.packs_per_step // num_ranks
        for number in sorted(numbers, key=lambda own: -cost[own]):
            rank = min((r for r in range(num_ranks) if len(hands[r]) < places), key=lambda r: loads[r])
            hands[rank].append(number)
            loads[rank] += cost[number]
        order += [hands[rank][turn] for turn in range(places) for rank in range(num_ranks)]
    return tuple(order)
