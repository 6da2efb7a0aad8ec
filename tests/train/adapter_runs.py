"""Runs with adapters in processes of their own: `adapter_runs.py STEP KILLED.yaml ... SHARED.yaml`.

All but the last are killed in the middle of a step and given again; the last is shared by two ranks.
"""

import signal
import sys
from pathlib import Path

from forking import be_rank, codes, die_in_step, forked, free_port, train

NUM_RANKS = 2


def train_and_die(run_file: Path, *, in_step: int) -> None:
    die_in_step(in_step)
    train(run_file)


def train_as_rank(run_file: Path, *, rank: int, port: int) -> None:
    be_rank(rank, num_ranks=NUM_RANKS, port=port)
    train(run_file)


step, (*killed, shared) = int(sys.argv[1]), [Path(file) for file in sys.argv[2:]]
port = free_port()
ranks = [
    forked(lambda: train_as_rank(shared, rank=rank, port=port), shared.parent / f"rank-{rank}.log")  # noqa: B023
    for rank in range(NUM_RANKS)
]
first = codes([forked(lambda: train_and_die(file, in_step=step), file.parent / "killed.log") for file in killed])  # noqa: B023
again = codes([forked(lambda: train(file), file.parent / "again.log") for file in killed])  # noqa: B023
together = codes(ranks)
print(f"first {first}, again {again}, ranks {together}", file=sys.stderr)
sys.exit(set(first) != {-signal.SIGKILL} or set(again + together) != {0})
