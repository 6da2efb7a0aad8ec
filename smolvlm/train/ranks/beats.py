"""Where every rank is, told to the others while they train: who waits, and for whom.

In: each rank's place, said at every turn of a step: the step, how many of its packs are begun, and
what is being done. Out: the ranks that are behind this one. A place is one write to the store by
which the ranks found each other (10 us on one machine); nobody waits for anybody to read it, so it
is also there when ranks stand still in a collective operation and can say nothing to each other any
more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch.distributed as dist

Phase = Literal["loading", "forward", "backward", "updating", "logging", "saving"]
"""Waiting for its packs; computing the loss of one; its gradients, and what ranks exchange then;
what comes between two packs; a line of the log; a checkpoint or an evaluation. In their order."""
_PHASES: tuple[Phase, ...] = get_args(Phase)
_WORDS: dict[Phase, str] = {
    "loading": "loading its packs",
    "forward": "computing a loss",
    "backward": "computing gradients",
    "updating": "updating weights",
    "logging": "logging its step",
    "saving": "saving or evaluating",
}
_PREFIX = "smolvlm/place"
_AT_MOST_NAMED = 3


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """How far a rank is."""

    step: int
    pack: int
    """Of the step, from 1; 0 before its first."""
    phase: int

    @property
    def words(self) -> str:
        """What the rank is doing."""
        return f"step {self.step}, {_WORDS[_PHASES[self.phase]]}"


@dataclass(frozen=True, slots=True)
class RankPlace:
    """A rank, and where it is."""

    rank: int
    place: Place

    def __str__(self) -> str:
        return f"rank {self.rank} ({self.place.words})"


class RankBeats:
    """The places of all ranks; of a single process, its own alone."""

    def __init__(self, store: Any, *, rank: int, num_ranks: int) -> None:
        """
        Args:
            store: a `torch.distributed.Store` that all ranks write to; None where there is one.
            rank: this process's.
            num_ranks: in all.
        """
        self._store = store
        self._rank = rank
        self.num_ranks = num_ranks
        self._place = Place(0, 0, 0)

    @classmethod
    def of_run(cls) -> "RankBeats":
        """Return those of the ranks that this process trains with, if it trains with any."""
        if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return cls(None, rank=0, num_ranks=1)
        # No public name has it; another store would need a port that all machines reach.
        store = dist.distributed_c10d._get_default_store()
        return cls(store, rank=dist.get_rank(), num_ranks=dist.get_world_size())

    def reach(self, phase: Phase, *, step: int | None = None) -> None:
        """Say that this rank begins with something.

        Args:
            phase: what.
            step: that it belongs to; None is the one it was in.
        """
        earlier = self._place
        number = earlier.step if step is None else step
        pack = earlier.pack if number == earlier.step else 0
        self._place = Place(number, pack + (phase == "forward"), _PHASES.index(phase))
        if self._store is None:
            return
        try:
            self._store.set(f"{_PREFIX}/{self._rank}", f"{number} {self._place.pack} {phase}")
        except RuntimeError:  # the rank that keeps the store is gone: this one is about to hear
            self._store = None

    def behind(self) -> list[RankPlace]:
        """Return the ranks that this one waits for, or will: those least far, if not all are there.

        Empty where all are where this one is, or further, and where the store does not answer.
        """
        others = [found for found in self._others() if found.place < self._place]
        if not others:
            return []
        least = min(found.place for found in others)
        return [found for found in others if found.place == least]

    def _others(self) -> list[RankPlace]:
        if self._store is None:
            return []
        keys = {rank: f"{_PREFIX}/{rank}" for rank in range(self.num_ranks) if rank != self._rank}
        try:
            known = [rank for rank, key in keys.items() if self._store.check([key])]
            values = self._store.multi_get([keys[rank] for rank in known]) if known else []
        except (RuntimeError, ValueError):
            return []
        found: list[RankPlace] = []
        for rank, value in zip(known, values, strict=True):
            step, pack, phase = value.decode().split()
            found.append(RankPlace(rank, Place(int(step), int(pack), _PHASES.index(phase))))
        return found


def waits_for(ranks: Sequence[RankPlace]) -> str:
    """Return the ranks that are waited for in words, with what the first is doing."""
    if len(ranks) == 1:
        return f"waits for {ranks[0]}"
    numbers = ", ".join(str(found.rank) for found in ranks[:_AT_MOST_NAMED])
    more = len(ranks) - _AT_MOST_NAMED
    if more > 0:
        numbers += f" and {more} more"
    return f"waits for ranks {numbers} ({ranks[0].place.words})"
