"""`python -m benchmarks.plan_ranks`: what `smolvlm plan` says of a step on two ranks beside two
processes that train, in CPU time of a rank.

DDP, FSDP2, and DDP whose two ranks hold each pack together, over gloo on the loopback interface,
one thread a rank, no more ranks than cores; the model has the 256M widths, 2 layers in the tower
and 4 in the language model, all trained. Measured first is the CPU time of summing 128 MB over
both, of gathering as many, and of a sum that each keeps half of: gloo takes them for different
times. The median of the steps after the first is compared, of the rank that took longer.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.plan_memory import predicted, write_data, write_model, write_run
from smolvlm.config.load import load_run_config
from smolvlm.plan.calibration import machine
from smolvlm.plan.many_devices import Cluster, ClusterPlan, Engine, Links, plan_cluster
from smolvlm.plan.run_plan import RunPlan
from smolvlm.runs.training import train_and_report

NUM_RANKS = 2
LAYOUTS: Mapping[str, tuple[Engine, int]] = {
    "ddp": ("ddp", 1),
    "fsdp2": ("fsdp2", 1),
    "ddp, 2 context ranks": ("ddp", 2),
}
"""Engine and context ranks of each run."""
COMMON = ("train.packs_per_step=2", "data.max_tokens_per_pack=600")
SUMMED = 32_000_000
TOLERANCE = 0.2
EXIT_IS_OFF = 3


class _StepTimes(TrainerCallback):
    """Notes the CPU time of each step."""

    def __init__(self) -> None:
        self.cpu_s: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.cpu_s.append(time.process_time() - self._began)


def collective_times() -> dict[str, float]:
    """Return the CPU time of a sum over two ranks, of gathering as many bytes, and of a sum of
    which each keeps half; every rank calls it."""
    distributed: Any = torch.distributed
    distributed.init_process_group("gloo")
    # torch 2.14 renamed them, and warns of the former names.
    gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
    scatter = (
        getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor
    )
    whole, part = torch.ones(SUMMED), torch.ones(SUMMED // NUM_RANKS)
    found = {
        "sum": _cpu_s(lambda: distributed.all_reduce(whole)),
        "gather": _cpu_s(lambda: gather(whole, part)),
        "scatter": _cpu_s(lambda: scatter(part, whole)),
    }
    distributed.destroy_process_group()
    return found


def _cpu_s(work: Callable[[], object]) -> float:
    work()
    times: list[float] = []
    for _ in range(5):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return statistics.median(times)


def cluster_of(ranks: Sequence[Mapping[str, float]]) -> Cluster:
    """Return two ranks whose links are as fast as their sums, and what other collectives take
    beside those."""
    times = {name: max(rank[name] for rank in ranks) for name in ranks[0]}
    rate = 4.0 * SUMMED / times["sum"]
    # Each passes half as many bytes as a sum.
    costs = {name: times[name] / (times["sum"] / 2) for name in ("gather", "scatter")}
    return Cluster(
        num_ranks=NUM_RANKS,
        num_hosts=1,
        links=Links(within_host=rate, between_hosts=rate),
        link_share=1.0,
        gather_cost=costs["gather"],
        scatter_cost=costs["scatter"],
    )


def on_ranks(*arguments: str) -> list[Any]:
    """Call this module on every rank and return what each printed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(NUM_RANKS)),
            *("--master-addr", "127.0.0.1", "--master-port", "0", "--standalone"),
            *("-m", "benchmarks.plan_ranks", "--out", folder, *arguments),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise RuntimeError(result.stderr)
        return [json.loads(path.read_text()) for path in sorted(Path(folder).iterdir())]


def planned(plan: RunPlan, cluster: Cluster, name: str) -> ClusterPlan:
    """Return what is planned of one of `LAYOUTS`."""
    engine, context_ranks = LAYOUTS[name]
    return plan_cluster(plan, cluster, engine=engine, context_ranks=context_ranks)


def measured(folder: Path, name: str, *, steps: int) -> list[list[float]]:
    """Train one of `LAYOUTS` on two ranks; return the CPU time of each step by rank."""
    engine, context_ranks = LAYOUTS[name]
    output = folder / "runs" / f"{engine}_{context_ranks}"
    changes = (
        *COMMON,
        f"train.engine={json.dumps(engine)}",
        f"train.context_ranks={context_ranks}",
        f"train.output_dir={json.dumps(str(output))}",
    )
    run_file = write_run(folder, "full", steps=steps, changes=changes)
    return on_ranks("--train", str(run_file))


def row(name: str, plan: ClusterPlan, steps: Sequence[Sequence[float]]) -> tuple[str, float]:
    """Return a line, and how far planned and measured are apart."""
    medians = [statistics.median(times[1:]) for times in steps]
    taken = max(medians)
    off = plan.step_s / taken - 1
    ranks = ", ".join(f"{min(times[1:]):.2f} to {max(times[1:]):.2f}" for times in steps)
    line = (
        f"{name:<22}{plan.computing_s:>10.2f}{plan.communicating_s:>15.2f}{plan.step_s:>10.2f}"
        f"{taken:>10.2f}{off:>+9.1%}   {ranks}"
    )
    return line, off


HEAD = (
    f"{'CPU s of a step':<22}{'computing':>10}{'communication':>15}{'planned':>10}{'measured':>10}"
    f"{'':>9}   single steps, by rank"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print planned and measured CPU time of a step; exit status 3 where they are a fifth apart."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plan_ranks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, help="of a rank: folder to write to")
    parser.add_argument("--train", type=Path, help="of a rank: run file to train")
    parser.add_argument("--only", choices=list(LAYOUTS), action="append")
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if options.out is not None:
        notes = _StepTimes()
        if options.train is not None:
            train_and_report(load_run_config(options.train), callbacks=[notes])
        found = notes.cpu_s if options.train is not None else collective_times()
        (options.out / os.environ["RANK"]).write_text(json.dumps(found))
        return 0
    is_off = False
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-") as work:
        folder = Path(work)
        write_model(folder / "model", vision_layers=2, language_layers=4)
        write_data(folder)
        machine(anew=True)
        plan = predicted(write_run(folder, "full", steps=options.steps, changes=COMMON))
        cluster = cluster_of(on_ranks())
        print(
            f"sums pass {cluster.links.within_host / 1e9:.2f} GB a second of CPU time; gathering "
            f"takes {cluster.gather_cost:.1f} times what its bytes would, sums kept in shares "
            f"{cluster.scatter_cost:.1f}\n{HEAD}",
            flush=True,
        )
        for name in options.only or LAYOUTS:
            steps = measured(folder, name, steps=options.steps)
            line, off = row(name, planned(plan, cluster, name), steps)
            print(line, flush=True)
            is_off |= abs(off) > TOLERANCE
    return EXIT_IS_OFF if is_off else 0


if __name__ == "__main__":
    sys.exit(main())
