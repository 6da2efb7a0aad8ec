"""A worker process: one system's model and trainer, which run one optimizer step whenever the
parent says so.

The trainers run their own loops. A callback holds them after each step's log line until the parent
says "go", so a turn is everything a user waits for: reading rows and pictures, forward, backward,
optimizer, log. Messages to the parent: {"ready": ...}, then {"loss": ..., "cpu_s": ...,
"peak_rss_bytes": ...} a step, and after "stop" a summary.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl
from transformers.trainer_callback import PrinterCallback

from benchmarks.job import Job, Precision, System
from benchmarks.processes import STOP
from benchmarks.rows import read_rows
from benchmarks.worker_memory import begin_peak, peak_rss_bytes, rss_bytes, state_bytes
from smolvlm.train.batch import PackInfo
from smolvlm.train.cpu_ways import computing_as_chosen
from smolvlm.train.flops import compute_cost
from smolvlm.train.log import pack_flops


class Measure:
    """Processor time and memory of one step."""

    def __init__(self) -> None:
        self._cpu_before_s = 0.0
        self.peak_rss_bytes = 0
        """Of all steps."""

    def begin(self) -> None:
        begin_peak()
        self._cpu_before_s = time.process_time()

    def message(self, loss: float) -> dict[str, float]:
        """Return what the parent is told of the step that ends here."""
        cpu_s, peak = time.process_time() - self._cpu_before_s, peak_rss_bytes()
        self.peak_rss_bytes = max(self.peak_rss_bytes, peak)
        return {"loss": loss, "cpu_s": cpu_s, "peak_rss_bytes": peak}


class Turnstile(TrainerCallback):
    """Lets one step through a "go"."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._measure = Measure()

    @property
    def peak_rss_bytes(self) -> int:
        return self._measure.peak_rss_bytes

    def on_train_begin(
        self, _args: Any, _state: Any, control: TrainerControl, **_kwargs: Any
    ) -> None:
        self._connection.send({"ready": True})
        self._wait(control)

    def on_log(
        self,
        _args: Any,
        _state: Any,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_kwargs: Any,
    ) -> None:
        if logs and "loss" in logs:
            self._connection.send(self._measure.message(float(logs["loss"])))
            self._wait(control)

    def _wait(self, control: TrainerControl) -> None:
        if self._connection.recv() == STOP:
            control.should_training_stop = True
        self._measure.begin()


class PaddingCount:
    """A collator that counts the tokens of another's batches, and keeps what ours says of packs."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate
        self.num_tokens = 0
        self.num_padded = 0
        self.infos: list[PackInfo] = []

    def __call__(self, rows: Any) -> Any:
        batch = self._collate(rows)
        if "attention_mask" in batch:  # a pack has none, and no padding
            self.num_tokens += batch["attention_mask"].numel()
            self.num_padded += int((batch["attention_mask"] == 0).sum())
        else:
            self.num_tokens += len(batch["pack"]["input_ids"])
            self.infos.append(batch["info"])
        return batch


def run_worker(job: Job, connection: Connection, *, compares_rows: bool) -> None:
    """Do a job; the process's entry.

    Args:
        job: what to build and train on.
        connection: to the parent.
        compares_rows: TRL only: measure what its conversational rows would learn, and send it as
            {"rows": ...}.
    """
    base_bytes = rss_bytes()
    _log_to(job.work_dir / f"{job.system}.log")
    torch.set_num_threads(job.num_threads)
    if job.scenario == "pairs":
        from benchmarks.pair_steps import run_pairs

        run_pairs(job, connection, Measure(), base_bytes=base_bytes)
        return
    trainer = _builder(job.system)(job)
    count = PaddingCount(trainer.data_collator)
    if compares_rows and job.system == "trl":
        from benchmarks.trl_trainer import conversational_losses

        rows = read_rows(job.rows_file)
        first = [rows[number] for number in job.steps[0].rows[: job.batch_size]]
        connection.send({"rows": conversational_losses(trainer, first)})
    trainer.data_collator = count
    trainer.remove_callback(PrinterCallback)
    turnstile = Turnstile(connection)
    trainer.add_callback(turnstile)
    ways = computing_as_chosen(trainer.args, resume=None) if job.system == "ours" else nullcontext()
    with ways:
        trainer.train()
    connection.send(
        {
            "num_tokens": count.num_tokens,
            "num_padded": count.num_padded,
            "peak_rss_bytes": turnstile.peak_rss_bytes,
            "base_rss_bytes": base_bytes,
            "state_bytes": state_bytes(trainer.model),
            "step_flops": _step_flops(trainer, count.infos),
            "flops_per_cpu_s": flops_per_cpu_s(job.precision) if job.system == "ours" else 0.0,
            "peak_device_bytes": torch.cuda.max_memory_allocated()
            if torch.cuda.is_available()
            else 0,
            "device": str(trainer.args.device),
        }
    )


def _builder(system: System) -> Callable[[Job], Trainer]:
    if system == "ours":
        from benchmarks.ours import build_ours

        return build_ours
    if system in ("trl", "trl_default"):
        from benchmarks.trl_trainer import build_trl_trainer

        return build_trl_trainer
    from benchmarks.plain_trainer import build_plain_trainer

    return build_plain_trainer


def _log_to(path: Path) -> None:
    """Send this process's standard output and error to a file: three systems' messages would
    mix."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, sys.stdout.fileno())
    os.dup2(file, sys.stderr.fileno())


def _step_flops(trainer: Trainer, infos: Sequence[PackInfo]) -> tuple[float, ...]:
    """Return what each of our steps computes, FLOPs; of a peer nothing is known."""
    if not infos:
        return ()
    cost, packs = compute_cost(trainer.model), trainer.args.gradient_accumulation_steps
    flops = [pack_flops(info, cost) for info in infos]
    return tuple(sum(flops[at : at + packs]) for at in range(0, len(flops), packs))


def flops_per_cpu_s(precision: Precision, *, size: int = 1024, seconds: float = 1.0) -> float:
    """Measure this machine's FLOPs a second of processor time: the best of square products.

    A stretch holds many products: the kernel adds up what a thread on another core has run at its
    timer's ticks alone (4 ms), and of one product of 2 ms a second thread's half was missing.
    """
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, size, generator=generator).to(dtype) for _ in range(2))
    best, begun = 0.0, time.process_time()
    while best == 0.0 or time.process_time() - begun < seconds:
        best = max(best, _products_per_cpu_s(left, right, seconds=seconds / 5))
    return 2.0 * size**3 * best


def _products_per_cpu_s(left: torch.Tensor, right: torch.Tensor, *, seconds: float) -> float:
    number, begun = 0, time.process_time()
    while number == 0 or time.process_time() - begun < seconds:
        torch.mm(left, right)
        number += 1
    return number / (time.process_time() - begun)
