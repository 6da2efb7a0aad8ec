"""The parent's side: three workers, one step at a time, in turns.

In: the three jobs of a scenario and a variant. Out: each system's measured steps. Only one worker
computes at any time; the order is A B C, C B A, A B C, ..., so that a machine that grows slower
hits all alike.
"""

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.job import Job, Phase
from benchmarks.processes import GO, STOP, process_context, start_worker


class WorkerDiedError(RuntimeError):
    """A worker ended before its work was done; the text ends with the last lines it wrote."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredStep:
    """One optimizer step as the parent saw it."""

    phase: Phase
    num_rows: int
    seconds: float
    cpu_s: float
    """Processor seconds of the worker, all threads: steadier than the clock on a machine that
    others use too."""
    loss: float
    peak_rss_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SystemResult:
    """What one worker did."""

    job: Job
    steps: tuple[MeasuredStep, ...]
    num_tokens: int
    num_padded: int
    peak_rss_bytes: int
    peak_device_bytes: int
    """Most memory of a GPU that tensors took; 0 without one."""
    device: str
    base_rss_bytes: int
    """What was resident before anything was loaded."""
    state_bytes: int
    """Weights, gradients and the optimizer's moments."""
    step_flops: tuple[float, ...]
    """What each step computes; of ours alone."""
    flops_per_cpu_s: float
    """What a product of matrices computes in a second of processor time, in the job's precision;
    measured in our worker, 0 in the others."""
    conversational: dict[str, float] | None
    """TRL: what its conversational rows would learn from the first batch."""

    @property
    def first_loss(self) -> float:
        return self.steps[0].loss

    @property
    def padding_share(self) -> float:
        return self.num_padded / self.num_tokens


@dataclass(kw_only=True, slots=True)
class _Worker:
    """A running process and the steps that it did."""

    job: Job
    process: Any
    connection: Connection
    done: list[MeasuredStep] = field(default_factory=list)

    def receive(self) -> dict[str, Any]:
        try:
            return self.connection.recv()
        except EOFError as error:
            self.process.join()
            log = (self.job.work_dir / f"{self.job.system}.log").read_text(errors="replace")
            tail = "\n".join(log.splitlines()[-30:])
            raise WorkerDiedError(
                f"{self.job.system} ended with status {self.process.exitcode}:\n{tail}"
            ) from error

    def step(self) -> None:
        own = self.job.steps[len(self.done)]
        started = time.perf_counter()
        self.connection.send(GO)
        answer = self.receive()
        seconds = time.perf_counter() - started
        self.done.append(
            MeasuredStep(phase=own.phase, num_rows=len(own.rows), seconds=seconds, **answer)
        )


def measure_jobs(jobs: Sequence[Job], *, compares_rows: bool) -> list[SystemResult]:
    """Run the jobs of one scenario and variant in turns.

    Raises:
        WorkerDiedError: a worker ended early.
    """
    with ExitStack() as stack:
        workers = [_start(job, stack, compares_rows=compares_rows) for job in jobs]
        conversational: dict[str, dict[str, float]] = {}
        for worker in workers:
            message = worker.receive()
            if "rows" in message:
                conversational[worker.job.system] = message["rows"]
                message = worker.receive()
            assert "ready" in message
        turn = 0
        while any(_is_next(worker) for worker in workers):
            for worker in workers if turn % 2 == 0 else reversed(workers):
                if _is_next(worker):
                    worker.step()
                if _phase(worker) == "between" and _is_next(worker):
                    worker.step()
            turn += 1
            _show_turn(turn, workers)
        return [_finish(worker, conversational.get(worker.job.system)) for worker in workers]


def _start(job: Job, stack: ExitStack, *, compares_rows: bool) -> _Worker:
    context = process_context()
    own, others = context.Pipe()
    job.work_dir.mkdir(parents=True, exist_ok=True)
    process = context.Process(
        target=start_worker,
        args=(job, others),
        kwargs={"compares_rows": compares_rows},
        daemon=True,
    )
    process.start()
    others.close()
    stack.callback(process.join)
    stack.callback(process.terminate)
    stack.callback(own.close)
    return _Worker(job=job, process=process, connection=own)


def _show_turn(turn: int, workers: Sequence[_Worker]) -> None:
    last = {
        worker.job.system: [step for step in worker.done if step.phase != "between"][-1]
        for worker in workers
    }
    seconds = ", ".join(f"{system} {step.seconds:.2f} s" for system, step in last.items())
    job = workers[0].job
    print(f"{job.scenario}, {job.variant}, turn {turn}: {seconds}", file=sys.stderr, flush=True)


def _is_next(worker: _Worker) -> bool:
    """Say whether a step is left to run; the last one is only ever read."""
    return len(worker.done) < len(worker.job.steps) - 1


def _phase(worker: _Worker) -> Phase:
    return worker.job.steps[len(worker.done)].phase


def _finish(worker: _Worker, conversational: dict[str, float] | None) -> SystemResult:
    worker.connection.send(STOP)
    summary = worker.receive()
    worker.process.join()
    return SystemResult(
        job=worker.job, steps=tuple(worker.done), conversational=conversational, **summary
    )
