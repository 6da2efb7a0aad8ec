"""Whole runs forked from one process that has only imported what they need, which is most of a
short run's time."""

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smolvlm.cli.main import main
from smolvlm.model import modeling_smolvlm
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer


def forked(work: Callable[[], None], log: Path) -> int:
    """Start work in a process of its own, its messages in `log`, and return its id."""
    process = os.fork()
    if process:
        return process
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    try:
        work()
    except SystemExit as end:
        os._exit(int(end.code or 0))
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def train(run_file: Path) -> None:
    """`smolvlm train RUN.yaml`."""
    sys.argv = ["smolvlm", "train", str(run_file)]
    main()


def die_in_step(step: int) -> None:
    """Let this process be killed in the middle of a step: nothing is flushed, closed or cleaned
    up."""
    training_step = SmolVLMTrainer.training_step

    def training_step_and_die(self: SmolVLMTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = training_step(self, *args, **kwargs)
        if self.state.global_step + 1 == step:
            self._checkpoints.wait()  # steps here are shorter than the disk takes
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    SmolVLMTrainer.training_step = training_step_and_die


def be_rank(rank: int, *, num_ranks: int, port: int) -> None:
    """Tell this process what torchrun tells its processes."""
    numbers = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": num_ranks,
        "LOCAL_WORLD_SIZE": num_ranks,
    }
    os.environ |= {name: str(number) for name, number in {**numbers, "MASTER_PORT": port}.items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def note_kinds(file: Path) -> None:
    """Note a line for each pack that this process trains on: the step, and what the pack has."""
    training_step = SmolVLMTrainer.training_step

    def noted_step(self: SmolVLMTrainer, model: Any, inputs: Any, *args: Any, **kw: Any) -> Any:
        info = inputs["info"]
        has = "cached" if not info.num_computed_tiles else "pictures"
        kind = (has if info.num_tiles else "text") if info.where else "empty"
        with file.open("a") as notes:
            notes.write(f"{self.state.global_step + 1} {kind}\n")
        return training_step(self, model, inputs, *args, **kw)

    SmolVLMTrainer.training_step = noted_step


def note_tiles(file: Path) -> None:
    """Note a line for each time that this process's tower computes: how many tiles."""
    run_tower = modeling_smolvlm.run_tower

    def noted(tower: Any, pixel_values: Any, *args: Any) -> Any:
        with file.open("a") as notes:
            notes.write(f"{len(pixel_values)}\n")
        return run_tower(tower, pixel_values, *args)

    modeling_smolvlm.run_tower = noted


def codes(processes: Sequence[int], *, limit_s: float = float("inf")) -> list[int]:
    """Wait for processes; return their exit codes, a signal as a negative number.

    Raises:
        TimeoutError: some were not done within the limit; all are killed then.
    """
    end, found = time.monotonic() + limit_s, dict[int, int]()
    while len(found) < len(processes):
        for process in set(processes) - found.keys():
            done, status = os.waitpid(process, os.WNOHANG)
            if done:
                found[process] = os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            for process in (stuck := set(processes) - found.keys()):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            raise TimeoutError(f"{len(stuck)} of {len(processes)} not done after {limit_s:.0f} s")
        time.sleep(0.01)
    return [found[process] for process in processes]
