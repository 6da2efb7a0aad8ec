"""Epochs planned to the last token: which rows form which packs, in which optimizer step.

In: lengths, budget, seed. Out: a `Plan`, a pure function of these: no file, rank or worker has a say. Every row stands
in an epoch exactly once. The number of steps is exact, so the progress bar and the schedule are true and resuming is a
matter of one counter. Rows that begin with the same pictures become trees of at most `max_branches`; samples are laid
into packs by best fit under two budgets (tokens, tiles), in windows of the shuffled order so that which samples meet
in a pack stays random.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from smolvlm.datasets.lengths import Budget, LengthTable

WINDOW_SAMPLES = 2048
"""Samples sorted by size together: more fills packs better and mixes less."""
MAX_OPEN_PACKS = 512
MAX_CANDIDATES = 64
"""Open packs looked at for one sample: those with the least room that still holds its tokens."""

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

    @property
    def num_steps(self) -> int:
        return len(self.packs) // self.packs_per_step

    def epoch_at(self, step: int) -> float:
        """Return how many epochs are done after so many steps."""
        begin = 0
        for epoch, end in enumerate(self.epoch_ends):
            if step <= end:
                return epoch + (step - begin) / (end - begin)
            begin = end
        return float(len(self.epoch_ends))

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
    epoch = 0
    while len(lengths) and (epoch < num_epochs if max_steps is None else len(packs) < max_steps * per_step):
        own = plan_epoch(lengths, settings, epoch=epoch)
        own += [EMPTY_PACK] * (-len(own) % per_step)
        if max_steps is None and num_epochs - epoch < 1:
            steps = max(1, round((num_epochs - epoch) * len(own) / per_step))
            own = own[: steps * per_step]
        packs += own
        if max_steps is not None:
            del packs[max_steps * per_step :]
        ends.append(len(packs) // per_step)
        epoch += 1
    return Plan(packs=tuple(packs), packs_per_step=per_step, epoch_ends=tuple(ends), budget=settings.budget)


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
    """Return (tokens, tiles) of a sample: a tree's shared beginning counts once."""
    index = list(rows)
    tokens = int(lengths.num_tokens[index].sum())
    tiles = int(lengths.num_tiles[index].sum())
    shared = len(rows) - 1
    return tokens - shared * int(lengths.prefix_tokens[rows[0]]), tiles - shared * int(lengths.prefix_tiles[rows[0]])


def gather_trees(order: Sequence[int], lengths: LengthTable, *, budget: Budget, max_branches: int) -> Iterator[Rows]:
    """Group rows that begin with the same pictures into samples that fit the budget."""
    open_trees: dict[int, list[int]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for row in order:
        group = int(lengths.prefix_group[row])
        own = int(lengths.num_tokens[row]), int(lengths.num_tiles[row])
        if group < 0:
            yield (row,)
            continue
        if group in open_trees:
            tokens = sizes[group][0] + own[0] - int(lengths.prefix_tokens[row])
            tiles = sizes[group][1] + own[1] - int(lengths.prefix_tiles[row])
            if tokens <= budget.max_tokens and tiles <= budget.max_tiles:
                open_trees[group].append(row)
                sizes[group] = tokens, tiles
                if len(open_trees[group]) == max_branches:
                    yield tuple(open_trees.pop(group))
                continue
            yield tuple(open_trees.pop(group))
        open_trees[group] = [row]
        sizes[group] = own
    yield from map(tuple, open_trees.values())


def fill_packs(samples: Sequence[Rows], lengths: LengthTable, *, budget: Budget) -> list[PlannedPack]:
    """Lay samples into packs: best fit, largest first within a window."""
    done: list[PlannedPack] = []
    rooms: list[tuple[int, int]] = []  # (free tokens, pack number), ascending
    contents: dict[int, list[Rows]] = {}
    free_tiles: dict[int, int] = {}
    opened = 0

    def close(place: int) -> None:
        free, number = rooms.pop(place)
        tiles = budget.max_tiles - free_tiles.pop(number)
        members = tuple(contents.pop(number))
        done.append(PlannedPack(samples=members, num_tokens=budget.max_tokens - free, num_tiles=tiles))

    for start in range(0, len(samples), WINDOW_SAMPLES):
        window = [(sample_size(rows, lengths), rows) for rows in samples[start : start + WINDOW_SAMPLES]]
        window.sort(key=lambda sized: sized[0], reverse=True)
        for (tokens, tiles), rows in window:
            first = bisect_left(rooms, (tokens, -1))
            fitting = (
                place
                for place in range(first, min(first + MAX_CANDIDATES, len(rooms)))
                if free_tiles[rooms[place][1]] >= tiles
            )
            place = next(fitting, None)
            if place is None:
                if len(rooms) == MAX_OPEN_PACKS:
                    close(0)
                free, number = budget.max_tokens, opened
                contents[number], free_tiles[number] = [], budget.max_tiles
                opened += 1
            else:
                free, number = rooms.pop(place)
            contents[number].append(rows)
            free_tiles[number] -= tiles
            insort(rooms, (free - tokens, number))
    while rooms:
        close(0)
    return done


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
