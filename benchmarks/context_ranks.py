"""What one sequence over several ranks takes: memory by ranks and length, and balance.

    python -m benchmarks.context_ranks [--lengths 16384 32768 65536] [--ranks 1 2 4]

Memory: one conversation of so many tokens, forward and backward of a tiny language model (2
layers, width 32), float32, one thread a rank, ranks over gloo on this machine. "kept" is what
autograd keeps for the backward pass at the end of the forward (parameters left out, each storage
once), "gathered" the keys and values of all ranks among it; "peak" is the most resident memory
above the model's. The most of any rank. Balance: visible pairs of the rank with most over their
mean, cut into one stretch a rank and as `deal_tokens` cuts.
"""

import argparse
import multiprocessing
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from rich.console import Console
from rich.table import Table
from torch import Tensor

from smolvlm.build.configs import LanguageDimensions, VisionDimensions, build_config
from smolvlm.datasets.encoding.tree import scope_ends
from smolvlm.datasets.packing.context_share import ContextCut
from smolvlm.datasets.packing.pack import Pack
from smolvlm.model.attention.rectangle import plan_parts_rectangle
from smolvlm.model.attention.rule import attention_planner
from smolvlm.model.context_ranks import group as groups
from smolvlm.model.context_ranks.partition import deal_tokens, visible_pairs
from smolvlm.model.modeling_smolvlm import SmolVLMForConditionalGeneration

TOWER = VisionDimensions(
    tile_side_px=32,
    patch_size_px=16,
    hidden_size=32,
    num_layers=1,
    num_heads=2,
    intermediate_size=64,
)
LANGUAGE = LanguageDimensions(
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    num_key_value_heads=1,
    intermediate_size=96,
    max_positions=2**20,
)
NUM_TARGETS = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One measurement."""

    length: int
    num_ranks: int
    exchange: str
    has_checkpointing: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a rank took, bytes and seconds of CPU."""

    kept: int
    gathered: int
    peak: int
    cpu_s: float
    loss: float


def main() -> int:
    """Print two tables and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[16_384, 32_768, 65_536])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--checkpointing", action="store_true")
    chosen = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(balance_table())
    table = Table(
        *("tokens", "ranks", "keys and values", "kept, MB", "of it gathered, MB", "the rest, MB"),
        *("peak, MB", "CPU s, all ranks", "loss"),
        title="memory of a rank",
    )
    for length in chosen.lengths:
        for num_ranks in chosen.ranks:
            for exchange in ("gather", "ring") if num_ranks > 1 else ("-",):
                job = Job(
                    length=length,
                    num_ranks=num_ranks,
                    exchange=exchange,
                    has_checkpointing=chosen.checkpointing,
                )
                costs = measured(job)
                print(job, *costs, sep="\n", file=sys.stderr, flush=True)
                most = max(costs, key=lambda cost: cost.kept)
                table.add_row(
                    *(f"{length:,}", str(num_ranks), exchange),
                    *(megabytes(most.kept), megabytes(most.gathered)),
                    megabytes(most.kept - most.gathered),
                    megabytes(max(cost.peak for cost in costs)),
                    f"{sum(cost.cpu_s for cost in costs):.0f}",
                    f"{sum(cost.loss for cost in costs):.6f}",
                )
    console.print(table)
    return 0


def megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f}"


# ---- balance


def balance_table() -> Table:
    """Return visible pairs of the busiest rank over the mean, by kind of pack and ranks."""
    table = Table("a pack of 65,536 tokens", title="visible pairs, most over mean")
    for num_ranks in (2, 4, 8):
        table.add_column(f"{num_ranks} ranks: one stretch")
        table.add_column("chosen (stretches a rank)")
    for name, scope_end in packs(65_536).items():
        pairs = visible_pairs(scope_end)
        cells: list[str] = []
        for num_ranks in (2, 4, 8):
            held = deal_tokens(scope_end, num_ranks=num_ranks)
            even = np.array_split(np.arange(len(scope_end)), num_ranks)
            stretches = max(1 + int((np.diff(own) != 1).sum()) for own in held)
            cells.append(f"{busiest(pairs, even):.3f}")
            cells.append(f"{busiest(pairs, held):.3f} ({stretches})")
        table.add_row(name, *cells)
    return table


def busiest(pairs: np.ndarray, held: Any) -> float:
    loads = [int(pairs[own].sum()) for own in held]
    return max(loads) / (sum(loads) / len(loads))


def packs(length: int) -> dict[str, np.ndarray]:
    """Return `scope_end` of packs of so many tokens."""
    random = np.random.default_rng(0)

    def laid(sizes: list[int]) -> np.ndarray:
        ends = np.cumsum(sizes)
        ends = np.append(ends[ends < length], length)
        return ends[np.searchsorted(ends, np.arange(length), side="right")]

    tree = scope_ends([100] * 20, trunk_length=1300).astype(np.int64)
    trees = [tree + start for start in range(0, length, len(tree))]
    return {
        "one conversation": np.full(length, length),
        "short conversations, 50 to 2,000": laid(random.integers(50, 2000, 2000).tolist()),
        "half one conversation, half short": laid(
            [length // 2, *random.integers(50, 2000, 2000).tolist()]
        ),
        "trees of 20 questions": np.concatenate(trees)[:length].clip(max=length),
    }


# ---- memory


def measured(job: Job) -> list[Cost]:
    """Return what each rank took, each in a process of its own."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    pipes = [context.Pipe(duplex=False) for _ in range(job.num_ranks)]
    ranks = [
        context.Process(target=run_rank, args=(job, rank, port, writer))
        for rank, (_, writer) in enumerate(pipes)
    ]
    for rank in ranks:
        rank.start()
    for _, writer in pipes:
        writer.close()
    costs = [reader.recv() for reader, _ in pipes]
    for rank in ranks:
        rank.join()
    return costs


def run_rank(job: Job, rank: int, port: int, results: Connection) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(job.num_ranks), "GLOO_SOCKET_IFNAME": "lo"}
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = build_config(TOWER, LANGUAGE, scale_factor=1, model_type="smolvlm")
    model: Any = SmolVLMForConditionalGeneration(config)
    model.use_scope_attention()
    model.train()
    if job.has_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    pack = pack_of(job.length)
    if job.num_ranks > 1:
        dist.init_process_group("gloo")
        model.context_group = groups.ContextGroup.join(num_ranks=job.num_ranks, device_type="cpu")
        cut = ContextCut(
            rank=rank,
            num_ranks=job.num_ranks,
            plan_rectangle=plan_parts_rectangle,
            goes_round=job.exchange == "ring",
        )
        pack = cut(pack)
    tensors = pack.model_tensors()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before, began = reset_peak(), time.process_time()
    kept, gathered, loss = step(model, tensors)
    cost = Cost(
        kept=kept,
        gathered=gathered,
        peak=peak_bytes() - before,
        cpu_s=time.process_time() - began,
        loss=loss,
    )
    results.send(cost)
    if job.num_ranks > 1:
        dist.barrier()
        dist.destroy_process_group()


def step(model: Any, tensors: dict[str, Any]) -> tuple[int, int, float]:
    """Go forward and back; return the bytes kept in between, those of them that were gathered, and
    the loss."""
    of_model = {value.untyped_storage().data_ptr() for value in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in of_model:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with gathered_storages() as gathered:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = model(pack=tensors, normalizer=float(NUM_TARGETS))
        num_kept = sum(kept.values())
        num_gathered = sum(size for pointer, size in kept.items() if pointer in gathered)
        output.loss.backward()
    return num_kept, num_gathered, float(output.loss.detach())


@contextmanager
def gathered_storages() -> Iterator[set[int]]:
    """Note the storages of the keys and values that are gathered."""
    pointers: set[int] = set()
    gather = groups.gather_rows

    def noting(*args: Any, **settings: Any) -> Tensor:
        rows = gather(*args, **settings)
        pointers.add(rows.untyped_storage().data_ptr())
        return rows

    groups.gather_rows = noting
    try:
        yield pointers
    finally:
        groups.gather_rows = gather


def pack_of(length: int) -> Pack:
    """Return a pack of one conversation of so many tokens."""
    positions = torch.arange(length)
    targets = torch.linspace(0, length - 1, NUM_TARGETS).long()
    none = torch.zeros(0, dtype=torch.long)
    scope_end = torch.full((length,), length)
    return Pack(
        input_ids=positions * 7919 % 40_000,
        position_ids=positions,
        scope_end=scope_end,
        attention=attention_planner("cpu")(scope_end.numpy()),
        image_places=none,
        predict_from=targets,
        target_ids=targets % 40_000,
        target_weights=torch.ones(NUM_TARGETS),
        target_groups=targets * 0,
        group_sizes=torch.tensor([NUM_TARGETS]),
        reference_logps=None,
        tiles=torch.zeros(0, 3, 32, 32, dtype=torch.uint8),
        cached_features=None,
        slot_tiles=none,
        slot_sizes=None,
        target_sources=targets * 0,
        tile_keys=(),
        where=("one",),
        media_states=(),
        budget_tokens=length,
        skipped=(),
    )


def reset_peak() -> int:
    """Let the system count this process's peak memory from now on; return what it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def peak_bytes() -> int:
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    sys.exit(main())
