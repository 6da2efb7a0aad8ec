"""Runs on several ranks each, one after another: `engine_runs.py JOBS.json`.

A job is `{"run": RUN.yaml, "ranks": N}`. With `"dies_in_step": S` every rank is killed (SIGKILL) in
the middle of that step; with `"chunk_targets": C` the head takes so many targets at a time; with
`"notes_kinds": true` rank K notes the kinds of its packs in `kinds-K.txt`, and with
`"notes_tiles": true` how many tiles it computes in `tiles-K.txt`. What it prints goes to
`rank-K.log` beside its run file. Of a job whose ranks did not all end as they should, with
`"limit_s": S` within so many seconds, `problem.txt` says what happened. A job that hangs without a
limit is killed with all others by whoever started this.
"""

import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from forking import be_rank, codes, die_in_step, forked, free_port, note_kinds, note_tiles, train

from smolvlm.model import loss


def train_as_rank(job: dict[str, Any], *, rank: int, port: int) -> None:
    if job["ranks"] > 1:
        be_rank(rank, num_ranks=job["ranks"], port=port)
    if "dies_in_step" in job:
        die_in_step(job["dies_in_step"])
    if job.get("notes_kinds"):
        note_kinds(Path(job["run"]).with_name(f"kinds-{rank}.txt"))
    if job.get("notes_tiles"):
        note_tiles(Path(job["run"]).with_name(f"tiles-{rank}.txt"))
    loss.CHUNK_TARGETS = job.get("chunk_targets", loss.CHUNK_TARGETS)
    train(Path(job["run"]))


for job in json.loads(Path(sys.argv[1]).read_text()):
    port, folder = free_port(), Path(job["run"]).parent
    ranks = [
        forked(partial(train_as_rank, job, rank=rank, port=port), folder / f"rank-{rank}.log")
        for rank in range(job["ranks"])
    ]
    expected = -signal.SIGKILL if "dies_in_step" in job else 0
    try:
        ended: Any = codes(ranks, limit_s=job.get("limit_s", float("inf")))
    except TimeoutError as error:
        ended = [str(error)]
    if set(ended) != {expected}:
        logs = [(folder / f"rank-{rank}.log").read_text() for rank in range(job["ranks"])]
        problem = [f"the ranks ended with {ended}", *(log[-3000:] for log in logs)]
        (folder / "problem.txt").write_text("\n".join(problem))
