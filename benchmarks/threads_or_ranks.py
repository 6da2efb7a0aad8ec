"""One process of two threads against two processes of one thread each, on a CPU.

    python -m benchmarks.threads_or_ranks [--rounds 5] [--steps 1] [--layers 4 10] [--frozen] \
        [--packs 2]

A model of the 256M widths with so many layers of tower and language model, under bfloat16 autocast,
one tile and a short question a row. Both train on the same packs a step: the one process on all of
them, each of the two on half, its gradients averaged by DDP over gloo as a run does it (gradients
are views of the buckets). A step is forward, backward, clipping and AdamW. They take turns; tokens
a second are of all packs by the clock, and a ratio is the median of each round's. Memory is the
most that each process held; imports are among it.
"""

import argparse
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from benchmarks.attention import make_model, make_pack
from benchmarks.tower_ways import computing

ROWS_PER_PACK, WORDS = 4, 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a process trains."""

    num_ranks: int
    num_threads: int
    packs: int
    """Of a step, over all ranks."""
    steps: int
    layers: tuple[int, int]
    is_frozen: bool
    """Whether the vision tower is."""
    port: int


def work(job: Job, rank: int, connection: Connection) -> None:
    """Train so many steps each time that the parent says so, and answer with seconds."""
    torch.set_num_threads(job.num_threads)
    model: Any = make_model(job.layers, 1.0)
    model.model.vision_model.requires_grad_(not job.is_frozen)
    trained: Any = model
    if job.num_ranks > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(job.port)}
        torch.distributed.init_process_group("gloo", rank=rank, world_size=job.num_ranks)
        trained = DistributedDataParallel(model, gradient_as_bucket_view=True)
    parameters = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    torch.manual_seed(rank)
    count = job.packs // job.num_ranks
    packs = [make_pack(ROWS_PER_PACK, WORDS, targets=5) for _ in range(count)]

    def step() -> None:
        for number, pack in enumerate(packs, start=1):
            syncs = number == count or job.num_ranks == 1
            with nullcontext() if syncs else trained.no_sync(), computing(half=True):
                loss = trained(pack=pack, normalizer=float(len(pack["target_ids"]) * job.packs))
                loss.loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    connection.send("ready")
    while connection.recv():
        begun = time.perf_counter()
        for _ in range(job.steps):
            step()
        connection.send(time.perf_counter() - begun)
    status = Path("/proc/self/status").read_text().splitlines()
    connection.send(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))


class Team:
    """The processes that train together."""

    def __init__(self, job: Job) -> None:
        """Start them, and wait until they are ready."""
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(job.num_ranks)]
        self._ours = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=work, args=(job, rank, theirs), daemon=True)
            for rank, (_, theirs) in enumerate(pipes)
        ]
        for process in self._processes:
            process.start()
        self._hear()

    def _hear(self) -> list[Any]:
        return [connection.recv() for connection in self._ours]

    def round(self) -> float:
        """Return the seconds of a round, of the slowest."""
        for connection in self._ours:
            connection.send(True)
        return max(self._hear())

    def end(self) -> list[int]:
        """End them, and return what each held at most, KiB."""
        for connection in self._ours:
            connection.send(False)
        held = self._hear()
        for process in self._processes:
            process.join()
        return held


def main(arguments: Sequence[str] | None = None) -> None:
    """Print tokens a second and memory of both."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.threads_or_ranks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1, help="of a round")
    parser.add_argument("--packs", type=int, default=2, help="of a step")
    parser.add_argument("--layers", type=int, nargs=2, default=(4, 10), help="tower, language")
    parser.add_argument("--frozen", action="store_true", help="the vision tower does not train")
    options = parser.parse_args(arguments)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    teams = {
        name: Team(
            Job(
                num_ranks=ranks,
                num_threads=2 // ranks,
                packs=options.packs,
                steps=options.steps,
                layers=tuple(options.layers),
                is_frozen=options.frozen,
                port=port,
            )
        )
        for name, ranks in (("one process, two threads", 1), ("two processes, one thread", 2))
    }
    taken: dict[str, list[float]] = {name: [] for name in teams}
    for number in range(options.rounds + 1):
        seconds = {name: team.round() for name, team in teams.items()}
        if number:  # the first warms up
            for name, value in seconds.items():
                taken[name].append(value)
        shown = ", ".join(f"{value:.2f} s" for value in seconds.values())
        print(f"round {number}: {shown}", flush=True)
    tokens = options.packs * options.steps * ROWS_PER_PACK * (64 + WORDS)
    first = next(iter(taken.values()))
    for name, team in teams.items():
        ratio = statistics.median(a / b for a, b in zip(first, taken[name], strict=True))
        rate, held = tokens / statistics.median(taken[name]), team.end()
        spread = f"{tokens / max(taken[name]):.0f} to {tokens / min(taken[name]):.0f}"
        memory = " + ".join(f"{one * 1024 / 1e9:.2f}" for one in held)
        print(f"{name:28s}{rate:7.1f} tokens/s ({spread})  {ratio:.3f}x  {memory} GB", flush=True)


if __name__ == "__main__":
    main()
