"""A tiny run, killed (SIGKILL) at random moments and given again: `random_kills.py --kills 25`.

With `--ranks 2` two processes train, under DDP and FSDP2 in turn: one of them is killed, and the
others a moment later, as a launcher does.

The moments are spread evenly over the time that the run takes when nobody kills it, its start and
its end with them: rows are measured, features cached, checkpoints written and marked, a model
saved. A run that ends before its moment is compared with the one that was never killed: every loss,
rate and count, the rows of every step, every weight, to the bit. Then another begins. Exit status 0
means that all were equal and none was lost; 1 says what was not.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from forking import be_rank, forked, free_port, train
from PIL import Image
from safetensors.torch import load_file

from smolvlm.build.tiny import tiny_model
from smolvlm.train.checkpoint_folder import own_checkpoints, whole_checkpoints
from smolvlm.train.log import MEASURED_KEYS

NUM_PICTURES, NUM_WORDS = 6, 12
LIMIT_S = 300
"""For one start."""
Moments = Sequence[float]


def write_rows(folder: Path) -> list[dict[str, str]]:
    """Write rows with and without pictures, and return them as a mixture."""
    rng = random.Random(0)
    pictures = []
    for number in range(NUM_PICTURES):
        name = f"{number}.png"
        noise = bytes(rng.randrange(256) for _ in range(40 * 30 * 3))
        Image.frombytes("RGB", (40, 30), noise).save(folder / name)
        pictures.append({"image": name, "question": f"What is {number}?", "answer": "noise"})
    words = [{"question": f"{n} plus 1?", "answer": f"{n + 1}"} for n in range(NUM_WORDS)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pictures + words))
    return [{"json_path": str(folder / "rows.jsonl")}]


KINDS: dict[str, dict[str, Any]] = {
    "cached": {},
    "workers": {"vision_tower_lr": 2e-4, "dataloader_num_workers": 2},
    "cached, workers": {"dataloader_num_workers": 2},
}
"""A frozen tower whose features are cached; all towers trained, with loader workers; both, where
workers that read ahead find in a cache that is being filled what it holds at that moment."""

RANK_KINDS: dict[str, dict[str, Any]] = {
    "ddp": {"vision_tower_lr": 2e-4, "engine": "ddp"},
    "fsdp2": {"vision_tower_lr": 2e-4, "engine": "fsdp2", "dataloader_num_workers": 1},
    "cached, ddp": {"engine": "ddp", "dataloader_num_workers": 1},
}
"""Of several ranks. In the last one, each may find in one cache what another has just put there."""
LAST_ONE_S = 0.5
"""Other ranks outlive the one that is killed by up to so long."""


def write_run(
    root: Path, kind: str, name: str, mixture: list[dict[str, str]], *, num_ranks: int
) -> Path:
    """Write a run file into a folder of its own."""
    cache = {"vision_cache_dir": str(root / name / "cache")} if kind.startswith("cached") else {}
    content = {
        "model": {"path": str(root / "tiny")},
        "data": {
            "mixture": mixture,
            "max_tokens_per_pack": 128,
            "longest_edge_px": 64,
            **cache,
        },
        "train": {
            "output_dir": str(root / name / "out"),
            "language_model_lr": 1e-3,
            "packs_per_step": num_ranks,
            "ddp_backend": "gloo" if num_ranks > 1 else None,
            "num_train_epochs": 6,
            "lr_scheduler_type": "cosine",
            "use_cpu": True,
            "logging_steps": 1,
            "log_sample_ids": True,
            "save_strategy": "steps",
            "save_steps": 2,
            "save_total_limit": 2,
            "disable_tqdm": True,
            **(KINDS | RANK_KINDS)[kind],
        },
    }
    (root / name).mkdir()
    (root / name / "run.yaml").write_text(yaml.safe_dump(content))
    return root / name / "run.yaml"


def train_as_rank(run_file: Path, *, rank: int, num_ranks: int, port: int) -> None:
    if num_ranks > 1:
        be_rank(rank, num_ranks=num_ranks, port=port)
    train(run_file)


def start(run_file: Path, moments: Moments | None = None, *, num_ranks: int = 1) -> int | None:
    """Give a run's command; return its status, or None where it was killed before its end.

    Args:
        moments: seconds after which each rank is killed; None where none is.
    """
    port, log = free_port(), run_file.parent / "messages.log"
    ranks = [
        forked(partial(train_as_rank, run_file, rank=rank, num_ranks=num_ranks, port=port), log)
        for rank in range(num_ranks)
    ]
    began, statuses, killed = time.monotonic(), dict[int, int](), set[int]()
    while len(statuses) < num_ranks:
        passed = time.monotonic() - began
        for process in set(ranks) - statuses.keys():
            limit_s = LIMIT_S if moments is None else moments[ranks.index(process)]
            if passed > limit_s:
                os.kill(process, signal.SIGKILL)
                killed.add(process)
            done, status = os.waitpid(process, 0 if process in killed else os.WNOHANG)
            if done:
                statuses[process] = os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    if not killed:
        return max(statuses.values(), key=abs)
    if moments is None:
        raise TimeoutError(f"{run_file} was not done after {LIMIT_S} s")
    return None


EARLY = "before its first step"


def phase_of(out: Path) -> str:
    """Say how far a killed run had come, by what it left."""
    if not (out / "metrics.jsonl").exists():
        return EARLY
    if (out / "model.safetensors").exists():
        return "after its model was saved"
    if len(own_checkpoints(out)) > len(whole_checkpoints(out)):
        return "while a checkpoint was written or marked"
    return "in its steps"


def lines_of(out: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [
        {key: line[key] for key in line.keys() - MEASURED_KEYS} for line in lines if "loss" in line
    ]


def differences(out: Path, whole: Path) -> list[str]:
    """Return what a run that was killed has other than the one that was not."""
    found = []
    if lines_of(out) != lines_of(whole):
        found.append("losses, rates or counts")
    if (out / "samples.jsonl").read_text() != (whole / "samples.jsonl").read_text():
        found.append("the rows of the steps")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (out, whole))
    changed = [name for name in theirs if not torch.equal(ours[name], theirs[name])]
    return found + [f"{len(changed)} tensors"] * bool(changed)


def moments_of(
    rng: random.Random, seconds: float, num_ranks: int, *, num_early: int = 0
) -> Moments:
    """Choose when each rank is killed: one of them first, the others up to half a second later.

    Args:
        rng: chooses.
        seconds: that the run took when nobody killed it.
        num_early: how many starts on end were killed before a step: on a machine that has become
            slower all would be, so each makes the next one's moment later.
    """
    first = rng.uniform(0, seconds) * (1 + num_early / 2)
    moments = [first, *(first + rng.uniform(0, LAST_ONE_S) for _ in range(num_ranks - 1))]
    rng.shuffle(moments)
    return moments


def kill_and_compare(root: Path, *, num_kills: int, seed: int, num_ranks: int = 1) -> list[str]:
    """Kill runs so many times, of each kind in turn; return what was not as it should be."""
    tiny_model(root / "tiny", hidden_size=32)
    mixture, seconds = write_rows(root), dict[str, float]()
    kinds = [*(KINDS if num_ranks == 1 else RANK_KINDS)]
    for kind in kinds:
        whole, began = write_run(root, kind, kind, mixture, num_ranks=num_ranks), time.monotonic()
        status = start(whole, num_ranks=num_ranks)
        assert status == 0, (whole.parent / "messages.log").read_text()
        seconds[kind] = time.monotonic() - began
    rng, phases, problems, number = random.Random(seed), Counter[str](), list[str](), 0
    while phases.total() < num_kills:
        kind = kinds[number % len(kinds)]
        number += 1
        run_file = write_run(root, kind, f"run-{number}", mixture, num_ranks=num_ranks)
        out, status, num_early = run_file.parent / "out", None, 0
        while status is None:
            is_left = phases.total() < num_kills
            moments = (
                moments_of(rng, seconds[kind], num_ranks, num_early=num_early) if is_left else None
            )
            status = start(run_file, moments, num_ranks=num_ranks)
            if status is None:
                phases.update([phase := phase_of(out)])
                num_early = num_early + 1 if phase == EARLY else 0
        if status:
            log = (run_file.parent / "messages.log").read_text()
            problems.append(f"run {number} ended with status {status}: {log[-2000:]}")
        else:
            found = differences(out, root / kind / "out")
            problems += [f"run {number} ({kind}): {what}" for what in found]
        print(f"{phases.total()} kills, {number} runs, {len(problems)} differences", flush=True)
    kills = ", ".join(f"{count} {phase}" for phase, count in phases.most_common())
    print(f"{phases.total()} kills of {number} runs: {kills}; {len(problems)} differences")
    return problems


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["SMOLVLM_HOME"] = str(Path(folder) / "home")
        problems = kill_and_compare(
            Path(folder), num_kills=options.kills, seed=options.seed, num_ranks=options.ranks
        )
    print("\n".join(problems), end="\n" * bool(problems), file=sys.stderr)
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
