"""Whole runs in processes of their own: `forked_runs.py STEP KILLED.yaml ... SHARED.yaml`.

All but the last are `smolvlm train KILLED.yaml`, killed (SIGKILL) in the middle of a step and then
given again. The last is one run shared by two ranks. They go side by side. What a start prints goes
to `killed.log`, `again.log` and `rank-N.log` beside its run file. Exit status 0 means that all that
should be killed were, and that all that should end well did.
"""

import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

from forking import be_rank, codes, die_in_step, forked, free_port, train

from smolvlm.cli.train import train_aloud
from smolvlm.config.load import load_run_config
from smolvlm.errors import ConfigError
from smolvlm.train.arguments import training_arguments

NUM_RANKS = 2


def train_and_die(run_file: Path, *, in_step: int) -> None:
    die_in_step(in_step)
    train(run_file)


def train_as_rank(run_file: Path, *, rank: int, port: int) -> None:
    """Train as one rank; then ask for a step that cannot be dealt to the ranks, and note what is
    told."""
    be_rank(rank, num_ranks=NUM_RANKS, port=port)
    run = train_aloud(load_run_config(run_file))
    wrapped: Any = run.trainer.model_wrapped
    (run_file.parent / f"views-{rank}.txt").write_text(str(wrapped.gradient_as_bucket_view))
    odd = load_run_config(run_file, ["train.packs_per_step=3"])
    try:
        training_arguments(odd.train, num_steps=run.planned.plan.num_steps)
    except ConfigError as error:
        (run_file.parent / f"refused-{rank}.txt").write_text(str(error))


step, (*killed, shared) = int(sys.argv[1]), [Path(file) for file in sys.argv[2:]]
port = free_port()
ranks = [
    forked(partial(train_as_rank, shared, rank=rank, port=port), shared.parent / f"rank-{rank}.log")
    for rank in range(NUM_RANKS)
]
first = codes(
    [
        forked(partial(train_and_die, file, in_step=step), file.parent / "killed.log")
        for file in killed
    ]
)
again = codes([forked(partial(train, file), file.parent / "again.log") for file in killed])
together = codes(ranks)
print(f"first {first}, again {again}, ranks {together}", file=sys.stderr)
sys.exit(set(first) != {-signal.SIGKILL} or set(again + together) != {0})
