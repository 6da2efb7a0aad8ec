"""What a run says about its steps: `metrics.jsonl`, `ranks.jsonl`, `samples.jsonl`, and the sums
between two log lines.

Every number is over all ranks and all packs since the last line. A line is appended in one write,
so a killed run leaves whole lines; a checkpoint's marker comes after those before it are on the
disk. A resumed run drops the lines of steps it will do again, and one that was cut off.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from smolvlm.config.eval_metrics import PREFIX
from smolvlm.disk.atomic_files import append_line, write_text
from smolvlm.train.batch import PackInfo
from smolvlm.train.data_wait import DataWait
from smolvlm.train.flops import ComputeCost
from smolvlm.train.ranks.metrics_text import FILE_NAME, write_metrics_text
from smolvlm.train.ranks.rank_log import RankLog

SumOverRanks = Callable[[torch.Tensor], torch.Tensor]
MEASURED_KEYS = frozenset(
    {
        "samples_per_s",
        "tokens_per_s",
        "supervised_tokens_per_s",
        "tiles_per_s",
        "mfu",
        "peak_memory_gb",
        "data_wait",
        "slowest_rank",
    }
)
"""Of a line of steps; two runs that are equal to the bit agree in all others."""


@dataclass(slots=True)
class StepCounts:
    """One rank's sums over the packs since the last log line; ranks add up `as_vector`."""

    num_tokens: float = 0
    budget_tokens: float = 0
    num_supervised_tokens: float = 0
    num_tiles: float = 0
    num_samples: float = 0
    num_skipped: float = 0
    flops: float = 0

    def add(self, info: PackInfo, cost: ComputeCost) -> None:
        self.num_tokens += info.num_tokens
        self.budget_tokens += info.budget_tokens
        self.num_supervised_tokens += info.num_supervised_tokens
        self.num_tiles += info.num_tiles
        self.num_samples += len(info.where)
        self.num_skipped += len(info.skipped)
        self.flops += pack_flops(info, cost)

    def as_vector(self) -> torch.Tensor:
        return torch.tensor(
            [float(getattr(self, column.name)) for column in fields(self)], dtype=torch.float64
        )

    def metrics(
        self, totals: torch.Tensor, *, seconds: float, peak_flops: float
    ) -> dict[str, float]:
        """Return the log line's keys.

        Args:
            totals: `as_vector` summed over the ranks.
            seconds: since the last line.
            peak_flops: of all ranks' devices together, FLOPs a second.
        """
        total = dict(zip((column.name for column in fields(self)), totals.tolist(), strict=True))
        return {
            "num_tokens": int(total["num_tokens"]),
            "num_supervised_tokens": int(total["num_supervised_tokens"]),
            "num_tiles": int(total["num_tiles"]),
            "num_samples": int(total["num_samples"]),
            "num_skipped": int(total["num_skipped"]),
            "pack_fill": round(total["num_tokens"] / total["budget_tokens"], 4)
            if total["budget_tokens"]
            else 0.0,
            "samples_per_s": round(total["num_samples"] / seconds, 3),
            "tokens_per_s": round(total["num_tokens"] / seconds, 3),
            "supervised_tokens_per_s": round(total["num_supervised_tokens"] / seconds, 3),
            "tiles_per_s": round(total["num_tiles"] / seconds, 3),
            "mfu": round(total["flops"] / seconds / peak_flops, 4),
            "peak_memory_gb": round(peak_memory_bytes() / 1e9, 3),
        }


def pack_flops(info: PackInfo, cost: ComputeCost) -> float:
    """Return what a pack's forward and backward compute, FLOPs."""
    return cost.pack(
        num_tokens=info.num_tokens,
        num_computed_tiles=info.num_computed_tiles,
        num_targets=info.num_supervised_tokens,
    )


class MethodSums:
    """What a method logs, summed on the device and read when a line is written."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._sums: torch.Tensor | None = None
        self._num_shares = 0.0

    def add(self, metrics: Mapping[str, torch.Tensor], *, share: float) -> None:
        """Add a pack's sums, in float64 where its device has that.

        Args:
            metrics: the method's, by name; none of a pack without rows.
            share: how much of a step the pack is.
        """
        self._num_shares += share
        if not metrics:
            return
        values = torch.stack([metrics[name] for name in self._names])
        values = values.float() if values.device.type == "mps" else values.double()
        self._sums = values if self._sums is None else self._sums + values

    def means(self, sum_over_ranks: SumOverRanks) -> dict[str, float]:
        """Return the means over all ranks since the last line, and begin anew."""
        sums = torch.zeros(len(self._names) + 1, dtype=torch.float64)
        sums[0] = self._num_shares
        if self._sums is not None:
            sums[1:] = self._sums.cpu()
        self._sums, self._num_shares = None, 0.0
        count, *totals = sum_over_ranks(sums).tolist()
        return {
            name: total / max(count, 1) for name, total in zip(self._names, totals, strict=True)
        }


def as_logged(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an evaluation under the names that they are logged by."""
    return {f"{PREFIX}{name}": value for name, value in metrics.items()}


def peak_memory_bytes() -> int:
    """Return the peak memory: of the GPU, else of this process (resident)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class LineFile:
    """A JSON-lines file that survives being killed and resumed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep_until(self, step: int) -> None:
        """Drop lines of later steps, and a last line that was cut off."""
        if not self.path.exists():
            return
        kept: list[str] = []
        for line in self.path.read_bytes().splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # not JSON, or not UTF-8
                continue
            if isinstance(row, dict) and row.get("step", step) <= step:
                kept.append(f"{line.decode()}\n")
        write_text(self.path, "".join(kept))

    def ends_with(self, row: Mapping[str, object]) -> bool:
        """Say whether its last line is a row's."""
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        return lines[-1:] == [json.dumps(row).encode()]

    def append(self, row: Mapping[str, object]) -> None:
        """Append a row whole or not at all; raises OSError."""
        append_line(self.path, json.dumps(row))


class Stopwatch:
    """Seconds since the last look, pauses left out."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    def lap(self) -> float:
        now = time.perf_counter()
        seconds, self._since = now - self._since, now
        return max(seconds, 1e-9)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Stand still for as long as the context is open."""
        began = time.perf_counter()
        yield
        self._since += time.perf_counter() - began


class RunLog:
    """What a run writes while it trains, and what it sums between two lines.

    Every rank adds up its own packs; ranks meet only where a line or a checkpoint is due, where
    they meet anyway.
    """

    def __init__(
        self,
        run_dir: Path,
        *,
        cost: ComputeCost,
        metric_names: Sequence[str],
        logs_rows: bool,
        ranks: RankLog,
        waits: DataWait | None = None,
    ) -> None:
        """
        Args:
            run_dir: where it is written.
            cost: of a pack.
            metric_names: of the method.
            logs_rows: asks for `samples.jsonl`: which rows each step learned from.
            ranks: sums up what this rank does.
            waits: says so where the run waits for data.
        """
        self.watch = Stopwatch()
        self.rates: Mapping[str, float] = {}
        """Key -> each tower's learning rate in the last step."""
        self._cost = cost
        self._counts = StepCounts()
        self._method_sums = MethodSums(metric_names)
        self._logs_rows = logs_rows
        self._learned: list[tuple[int, str]] = []
        self._metrics_file = LineFile(run_dir / "metrics.jsonl")
        self._rows_file = LineFile(run_dir / "samples.jsonl")
        self._ranks, self._waits = ranks, waits
        self._ranks_file = LineFile(run_dir / "ranks.jsonl")
        self._ranks_line: dict[str, Any] = {}

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files, there or not."""
        return self._metrics_file.path, self._ranks_file.path, self._rows_file.path

    def keep_until(self, step: int) -> None:
        """Drop from its files what a resumed run will write again."""
        for file in (self._metrics_file, self._ranks_file, self._rows_file):
            file.keep_until(step)

    def add(self, info: PackInfo, metrics: Mapping[str, torch.Tensor], *, share: float) -> None:
        """Add a pack; `metrics` and `share` as in `MethodSums.add`."""
        self._counts.add(info, self._cost)
        if self._waits is not None:
            self._waits.add(info.times)
        self._method_sums.add(metrics, share=share)

    def step_line(
        self, sum_over_ranks: SumOverRanks, *, step: int, peak_flops: float
    ) -> dict[str, float]:
        """Return what a line says of the steps since the last one, and begin anew.

        Args:
            sum_over_ranks: of a tensor on the CPU.
            step: that it follows.
            peak_flops: of all ranks' devices together, FLOPs a second.
        """
        seconds = self.watch.lap()
        totals = sum_over_ranks(self._counts.as_vector())
        counts = self._counts.metrics(totals, seconds=seconds, peak_flops=peak_flops)
        self._counts = StepCounts()
        ranks = self._ranks.line(sum_over_ranks, step=step, peak_memory_bytes=peak_memory_bytes())
        self._ranks_line = ranks
        waits = ranks["data_wait_s"]
        counts["data_wait"] = round(sum(waits) / len(waits) / seconds, 4)
        if self._waits is not None:
            self._waits.line(counts["data_wait"])
        if len(waits) > 1:
            counts["slowest_rank"] = ranks["slowest_rank"]
        return {**self.rates, **counts, **self._method_sums.means(sum_over_ranks)}

    def write(self, line: Mapping[str, object]) -> None:
        """Append a line to `metrics.jsonl`, unless it is the last one; one of steps also, of
        several ranks, to `ranks.jsonl`, and to `metrics.prom` in place of the last one.

        A run killed between its last line and its last answers evaluates again.
        """
        if "loss" in line or not self._metrics_file.ends_with(line):
            self._metrics_file.append(line)
        if "loss" in line:
            folder = self._metrics_file.path.parent
            ranks = self._ranks_line if "slowest_rank" in line else {}
            if ranks:
                self._ranks_file.append(ranks)
            write_metrics_text(folder / FILE_NAME, line, ranks, run=folder.name)

    def add_rows(self, step: int, infos: Sequence[PackInfo]) -> None:
        """Note which rows a step learns from."""
        if self._logs_rows:
            self._learned += [(step, where) for info in infos for where in info.where]

    def write_rows(self, *, is_writer: bool) -> None:
        """Write the rows noted since the last call; every rank calls it, and one writes."""
        if not self._logs_rows:
            return
        learned = sorted(gather_object(self._learned))
        self._learned = []
        if is_writer:
            for step, rows in groupby(learned, key=itemgetter(0)):
                self._rows_file.append({"step": step, "where": [where for _, where in rows]})
