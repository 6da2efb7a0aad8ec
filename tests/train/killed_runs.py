"""`smolvlm train RUN.yaml`, killed in the middle of a step and given again: `killed_runs.py STEP RUN.yaml...`.

The signal is SIGKILL, so nothing is flushed, closed or cleaned up. All runs go side by side, and each start is a
process of its own, forked from this one, which has only imported what they need. Standard error goes to `killed.log`
and `again.log` beside the run file. Exit status 0 means that all were killed the first time and ended well the second.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from smolvlm.commands import train
from smolvlm.commands.cli import main
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer

assert train.__name__ == "smolvlm.commands.train", "imported here, so that no start has to"


def start(run_file: Path, *, killed_at_step: int | None) -> int:
    """Start `smolvlm train` and return its process id."""
    process = os.fork()
    if process:
        return process
    if killed_at_step is not None:
        die_in_step(killed_at_step)
    log = run_file.parent / ("again.log" if killed_at_step is None else "killed.log")
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), sys.stderr.fileno())
    sys.argv = ["smolvlm", "train", str(run_file)]
    try:
        main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    finally:
        os._exit(70)


def die_in_step(step: int) -> None:
    training_step = SmolVLMTrainer.training_step

    def training_step_and_die(self: SmolVLMTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = training_step(self, *args, **kwargs)
        if self.state.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    SmolVLMTrainer.training_step = training_step_and_die


def codes(processes: list[int]) -> list[int]:
    """Wait for processes; return their exit codes, a signal as a negative number."""
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


step, run_files = int(sys.argv[1]), [Path(file) for file in sys.argv[2:]]
first = codes([start(file, killed_at_step=step) for file in run_files])
second = codes([start(file, killed_at_step=None) for file in run_files])
print(first, second, file=sys.stderr)
sys.exit(set(first) != {-signal.SIGKILL} or set(second) != {0})
