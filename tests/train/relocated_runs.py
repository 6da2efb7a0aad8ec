"""Runs that are killed, moved with all that they read, and resumed: `relocated_runs.py STEP TARGET
RUN.yaml ...`.

Each run file's folder holds everything that the run reads and writes. The run is killed (SIGKILL)
in the middle of a step, the folder is moved into TARGET, and the run file there is given again.
Both commands are given in the run file's folder, from which `train.output_dir` starts.
Logs are `killed.log` and `again.log` beside the run file. Exit status 0 means that all were killed
and then ended well.
"""

import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from forking import codes, die_in_step, forked, train


def train_there(run_file: Path, *, dies_in_step: int | None = None) -> None:
    os.chdir(run_file.parent)
    if dies_in_step is not None:
        die_in_step(dies_in_step)
    train(run_file)


step, target, *run_files = int(sys.argv[1]), *map(Path, sys.argv[2:])
killed: list[int] = []
ended: list[int] = []
for run_file in run_files:
    log = run_file.parent / "killed.log"
    killed += codes([forked(partial(train_there, run_file, dies_in_step=step), log)])
    moved = target / run_file.parent.name
    shutil.move(run_file.parent, moved)
    ended += codes([forked(partial(train_there, moved / run_file.name), moved / "again.log")])
print(f"killed {killed}, ended {ended}", file=sys.stderr)
sys.exit(set(killed) != {-signal.SIGKILL} or set(ended) != {0})
