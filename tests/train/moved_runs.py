"""A run of two ranks, killed, and resumed by other numbers of ranks: `moved_runs.py STEP FIRST.yaml
ONE.yaml ...`.

Both ranks of the first are killed (SIGKILL) in the middle of a step. Its output is copied to each
further run's, whose folder's name is its number of ranks. Logs are `rank-N.log` beside the run
files. Exit status 0 means that the first's ranks were killed and the others ended well.
"""

import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from forking import be_rank, codes, die_in_step, forked, free_port, train


def train_as_rank(
    run_file: Path, *, rank: int, num_ranks: int, port: int, dies_in_step: int | None = None
) -> None:
    be_rank(rank, num_ranks=num_ranks, port=port)
    if dies_in_step is not None:
        die_in_step(dies_in_step)
    train(run_file)


def start(run_file: Path, *, num_ranks: int, dies_in_step: int | None = None) -> list[int]:
    port = free_port()
    return [
        forked(
            partial(
                train_as_rank,
                run_file,
                rank=rank,
                num_ranks=num_ranks,
                port=port,
                dies_in_step=dies_in_step,
            ),
            run_file.parent / f"rank-{rank}.log",
        )
        for rank in range(num_ranks)
    ]


step, first, *others = int(sys.argv[1]), *map(Path, sys.argv[2:])
killed = codes(start(first, num_ranks=2, dies_in_step=step))
ended: list[int] = []
for run_file in others:
    shutil.copytree(first.parent / "out", run_file.parent / "out")
    ended += codes(start(run_file, num_ranks=int(run_file.parent.name)))
print(f"killed {killed}, ended {ended}", file=sys.stderr)
sys.exit(killed != [-signal.SIGKILL] * 2 or set(ended) != {0})
