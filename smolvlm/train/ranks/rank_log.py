"""What each rank's steps took, beside each other: `ranks.jsonl`, a line for each line of
`metrics.jsonl`.

Ranks end each step together, so all of them take as long as the slowest, and wall time alone does
not say which that is. Here is what a rank does by itself: how long it waits for its packs, and how
long it computes losses, where nothing is exchanged (under FSDP2 the weights are). The backward pass
takes a multiple of that; it is where the others wait.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import torch

from smolvlm.train.batch import PackInfo

Batch = TypeVar("Batch")
SumOverRanks = Callable[[torch.Tensor], torch.Tensor]
_GB = 1e9


@dataclass(slots=True)
class RankSums:
    """Of one rank, since the last line."""

    data_wait_s: float = 0
    """Until its packs were there."""
    forward_s: float = 0
    """In forward passes: of the device, where that is a GPU."""
    num_tokens: float = 0
    budget_tokens: float = 0
    num_tiles: float = 0
    peak_memory_gb: float = 0
    """Of the run so far: the GPU's, else resident."""


class RankLog:
    """Sums up what this rank does, and lays it beside what the others do."""

    def __init__(self, *, rank: int, num_ranks: int, on_cuda: bool) -> None:
        self._rank = rank
        self._num_ranks = num_ranks
        self._on_cuda = on_cuda
        self._sums = RankSums()
        self._events: list[tuple[Any, Any]] = []

    def waiting(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield batches, and note how long each let this rank wait."""
        iterator = iter(batches)
        while True:
            began = time.perf_counter()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            finally:
                self._sums.data_wait_s += time.perf_counter() - began
            yield batch

    @contextmanager
    def forward(self, info: PackInfo) -> Iterator[None]:
        """Note how long the forward pass in the block takes; on a GPU nothing waits for it."""
        self._sums.num_tokens += info.num_tokens
        self._sums.budget_tokens += info.budget_tokens
        self._sums.num_tiles += info.num_tiles
        if self._on_cuda:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((begin, end))
        else:
            began = time.perf_counter()
            yield
            self._sums.forward_s += time.perf_counter() - began

    def line(
        self, sum_over_ranks: SumOverRanks, *, step: int, peak_memory_bytes: int
    ) -> dict[str, Any]:
        """Return what the ranks did since the last line, a list by rank each, and begin anew.

        Every rank calls it, where they meet for a line anyway.

        Args:
            sum_over_ranks: of a tensor on the CPU.
            step: of the line.
            peak_memory_bytes: of this rank.
        """
        for begin, end in self._events:
            end.synchronize()
            self._sums.forward_s += begin.elapsed_time(end) / 1000
        self._events = []
        self._sums.peak_memory_gb = peak_memory_bytes / _GB
        names = [column.name for column in fields(RankSums)]
        mine = torch.tensor([getattr(self._sums, name) for name in names], dtype=torch.float64)
        table = torch.zeros(self._num_ranks, len(names), dtype=torch.float64)
        table[self._rank] = mine
        self._sums = RankSums()
        columns = dict(zip(names, sum_over_ranks(table).T.tolist(), strict=True))
        return {"step": step, "slowest_rank": slowest(columns), **_rounded(columns)}


def slowest(columns: Mapping[str, list[float]]) -> int:
    """Return the rank that waited for data and computed longest by itself; the lowest of equals."""
    times = [
        wait + forward
        for wait, forward in zip(columns["data_wait_s"], columns["forward_s"], strict=True)
    ]
    return times.index(max(times))


def _rounded(columns: Mapping[str, list[float]]) -> dict[str, list[Any]]:
    """Return the columns of a line, the fill of packs in place of what it is made of.

    Of ranks that hold a pack together one knows its fill; it is None of the others.
    """
    counts = ("num_tokens", "num_tiles")
    line: dict[str, list[Any]] = {
        name: [round(value, 4) for value in columns[name]]
        for name in ("data_wait_s", "forward_s", "peak_memory_gb")
    }
    line |= {name: [int(value) for value in columns[name]] for name in counts}
    line["pack_fill"] = [
        round(used / budget, 4) if budget else None
        for used, budget in zip(columns["num_tokens"], columns["budget_tokens"], strict=True)
    ]
    return line
