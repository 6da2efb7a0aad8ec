"""Whole runs in processes of their own: `forked_runs.py STEP KILLED.yaml ... SHARED.yaml`.

All but the last are `smolvlm train KILLED.yaml`, killed in the middle of a step and then given again. The signal is
SIGKILL, so nothing is flushed, closed or cleaned up. The last is one run shared by two ranks, told what torchrun tells
its processes. Every start is forked from this process, which has only imported what they need (most of a short run's
time), and they go side by side. What a start prints goes to `killed.log`, `again.log` and `rank-N.log` beside its run
file. Exit status 0 means that all that should be killed were, and that all that should end well did.
"""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from smolvlm.commands.cli import main
from smolvlm.commands.train import train_and_report
from smolvlm.config.load import load_run_config
from smolvlm.errors import ConfigError
from smolvlm.train.arguments import training_arguments
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer

NUM_RANKS = 2


def forked(work: Callable[[], None], log: Path) -> int:
    """Start work in a process of its own and return its id."""
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
    sys.argv = ["smolvlm", "train", str(run_file)]
    main()


def train_and_die(run_file: Path, *, in_step: int) -> None:
    training_step = SmolVLMTrainer.training_step

    def training_step_and_die(self: SmolVLMTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = training_step(self, *args, **kwargs)
        if self.state.global_step + 1 == in_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    SmolVLMTrainer.training_step = training_step_and_die
    train(run_file)


def train_as_rank(run_file: Path, *, rank: int, port: int) -> None:
    """Train as one rank; then ask for a step that cannot be dealt to the ranks, and note what is told."""
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": NUM_RANKS, "LOCAL_WORLD_SIZE": NUM_RANKS}
    os.environ |= {name: str(number) for name, number in {**numbers, "MASTER_PORT": port}.items()}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    run = train_and_report(load_run_config(run_file))
    odd = load_run_config(run_file, ["train.packs_per_step=3"])
    try:
        training_arguments(odd.train, run.planned.plan)
    except ConfigError as error:
        (run_file.parent / f"refused-{rank}.txt").write_text(str(error))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def codes(processes: Sequence[int]) -> list[int]:
    """Wait for processes; return their exit codes, a signal as a negative number."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


step, (*killed, shared) = int(sys.argv[1]), [Path(file) for file in sys.argv[2:]]
port = free_port()
ranks = [
    forked(lambda: train_as_rank(shared, rank=rank, port=port), shared.parent / f"rank-{rank}.log")  # noqa: B023 - forked at once
    for rank in range(NUM_RANKS)
]
first = codes([forked(lambda: train_and_die(file, in_step=step), file.parent / "killed.log") for file in killed])  # noqa: B023
again = codes([forked(lambda: train(file), file.parent / "again.log") for file in killed])  # noqa: B023
together = codes(ranks)
print(f"first {first}, again {again}, ranks {together}", file=sys.stderr)
sys.exit(set(first) != {-signal.SIGKILL} or set(again + together) != {0})
