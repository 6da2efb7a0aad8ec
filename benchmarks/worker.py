"""A worker process: one system's model and trainer, which run one optimizer step whenever the
parent says so.

The trainers run their own loops. A callback holds them after each step's log line until the parent
says "go", so a turn is everything a user waits for: reading rows and pictures, forward, backward,
optimizer, log. Messages to the parent: {"ready": ...}, then {"loss": ..., "cpu_s": ...} a step, and
after "stop" a summary.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback, TrainerControl
from transformers.trainer_callback import PrinterCallback

from benchmarks.job import Job, System
from benchmarks.processes import STOP
from benchmarks.rows import read_rows


class Turnstile(TrainerCallback):
    """Lets one step through a "go"."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cpu_before_s = 0.0

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
            cpu_s = time.process_time() - self._cpu_before_s
            self._connection.send({"loss": float(logs["loss"]), "cpu_s": cpu_s})
            self._wait(control)

    def _wait(self, control: TrainerControl) -> None:
        if self._connection.recv() == STOP:
            control.should_training_stop = True
        self._cpu_before_s = time.process_time()


class PaddingCount:
    """A collator that counts the tokens of another's batches."""

    def __init__(self, collate: Callable[[Any], Any]) -> None:
        self._collate = collate
        self.num_tokens = 0
        self.num_padded = 0

    def __call__(self, rows: Any) -> Any:
        batch = self._collate(rows)
        if "attention_mask" in batch:  # a pack has none, and no padding
            self.num_tokens += batch["attention_mask"].numel()
            self.num_padded += int((batch["attention_mask"] == 0).sum())
        else:
            self.num_tokens += len(batch["pack"]["input_ids"])
        return batch


def run_worker(job: Job, connection: Connection, *, compares_rows: bool) -> None:
    """Do a job; the process's entry.

    Args:
        job: what to build and train on.
        connection: to the parent.
        compares_rows: TRL only: measure what its conversational rows would learn, and send it as
            {"rows": ...}.
    """
    _log_to(job.work_dir / f"{job.system}.log")
    torch.set_num_threads(job.num_threads)
    trainer = _builder(job.system)(job)
    count = PaddingCount(trainer.data_collator)
    if compares_rows and job.system == "trl":
        from benchmarks.trl_trainer import conversational_losses

        rows = read_rows(job.rows_file)
        first = [rows[number] for number in job.steps[0].rows[: job.batch_size]]
        connection.send({"rows": conversational_losses(trainer, first)})
    trainer.data_collator = count
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Turnstile(connection))
    trainer.train()
    connection.send(
        {
            "num_tokens": count.num_tokens,
            "num_padded": count.num_padded,
            "peak_rss_bytes": _peak_rss_bytes(),
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
    if system == "trl":
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


def _peak_rss_bytes() -> int:
    """Return the most resident memory this process had; Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
