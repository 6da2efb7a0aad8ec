"""`python -m benchmarks.plan_ranks`: what `smolvlm plan` says of a step on two ranks beside two
processes that train, in CPU time of a rank.

DDP over gloo on the loopback interface, one thread a rank, no more ranks than cores; the model is
that of `plan_memory`, all of it trained. The link's speed is measured first: CPU time of summing
128 MB over both. The median of the steps after the first is compared, of the rank that took longer.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.plan_memory import predicted, write_data, write_model, write_run
from smolvlm.config.load import load_run_config
from smolvlm.plan.calibration import machine
from smolvlm.plan.many_devices import Cluster, Links, plan_cluster
from smolvlm.runs.training import train_and_report

NUM_RANKS = 2
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


def link_rate() -> float:
    """Return the bytes of a sum over two ranks for each second of CPU time; every rank calls it."""
    torch.distributed.init_process_group("gloo")
    values = torch.ones(SUMMED)
    torch.distributed.all_reduce(values)
    times: list[float] = []
    for _ in range(5):
        began = time.process_time()
        torch.distributed.all_reduce(values)
        times.append(time.process_time() - began)
    torch.distributed.destroy_process_group()
    return 4.0 * SUMMED / statistics.median(times)


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Print planned and measured CPU time of a step; exit status 3 where they are a fifth apart."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plan_ranks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--out", type=Path, help="of a rank: folder to write to")
    parser.add_argument("--train", type=Path, help="of a rank: run file to train")
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args(arguments)
    if options.out is not None:
        torch.set_num_threads(1)
        notes = _StepTimes()
        if options.train is not None:
            train_and_report(load_run_config(options.train), callbacks=[notes])
        found = notes.cpu_s if options.train is not None else link_rate()
        (options.out / os.environ["RANK"]).write_text(json.dumps(found))
        return 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-") as work:
        folder = Path(work)
        write_model(folder / "model", vision_layers=4, language_layers=8)
        write_data(folder)
        changes = ["train.packs_per_step=2", "data.max_tokens_per_pack=600"]
        run_file = write_run(folder, "full", steps=options.steps, changes=changes)
        machine(anew=True)
        plan = predicted(run_file)
        rate = min(on_ranks())
        cluster = Cluster(
            num_ranks=NUM_RANKS,
            num_hosts=1,
            links=Links(within_host=rate, between_hosts=rate),
            link_share=1.0,
        )
        planned = plan_cluster(plan, cluster, engine="ddp")
        measured = on_ranks("--train", str(run_file))
    taken = max(statistics.median(times[1:]) for times in measured)
    print(f"link {rate / 1e9:.2f} GB/s of CPU time")
    print(
        f"a step: {planned.step_s:.2f} s of CPU planned ({planned.communicating_s:.2f} of them "
        f"communication), {taken:.2f} measured ({planned.step_s / taken - 1:+.1%})"
    )
    print("measured, by rank:", [[round(value, 2) for value in times] for times in measured])
    return EXIT_IS_OFF if abs(planned.step_s / taken - 1) > TOLERANCE else 0


if __name__ == "__main__":
    sys.exit(main())
