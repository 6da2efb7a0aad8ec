"""What saving holds a run up by, and what of it hides behind the steps.

    python -m benchmarks.saving [--folder FOLDER] [--steps 24] [--every 6] [--tiny]

One run of the 256M dimensions in float32, all towers trained, short packs of text; every few steps
a checkpoint (3.1 GB). Three things are told apart in it: what the step loop waits for while a
checkpoint's files are written (and for the marker before, if it is not done by then), how long
syncing, digests and marker then take on their thread, and how long steps are while that thread
works, beside those while it rests. Both kinds of steps alternate within the run.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.model_files import write_model
from smolvlm import api
from smolvlm.train.checkpoint import CheckpointFinisher
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer


@dataclass(slots=True)
class Clock:
    """What was measured, in seconds: (wall, CPU) of each occasion."""

    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    is_finishing: bool = False
    """Whether a checkpoint is synced and marked just now."""

    @contextmanager
    def timing(self, name: str, cpu_s: Callable[[], float]) -> Iterator[None]:
        wall, cpu = time.perf_counter(), cpu_s()
        yield
        self.add(name, (time.perf_counter() - wall, cpu_s() - cpu))

    def add(self, name: str, pair: tuple[float, float]) -> None:
        self.seconds.setdefault(name, []).append(pair)
        print(f"{name}: {pair[0]:.2f} s (CPU {pair[1]:.2f} s)", flush=True)

    def lines(self) -> list[str]:
        return [_line(name, pairs) for name, pairs in sorted(self.seconds.items())]


def _line(name: str, pairs: list[tuple[float, float]]) -> str:
    walls, cpus = zip(*pairs, strict=True)
    medians = f"{statistics.median(walls):.2f} s (CPU {statistics.median(cpus):.2f} s)"
    return f"{name}: {len(pairs)} times, median {medians}, largest {max(walls):.2f} s"


class Steps(TrainerCallback):
    """Notes how long each step was, by whether a checkpoint was being finished all the while."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def on_step_begin(self, *_: object, **__: object) -> None:
        self._began = time.perf_counter(), time.thread_time(), self._clock.is_finishing

    def on_step_end(self, *_: object, **__: object) -> None:
        wall, cpu, was_finishing = self._began
        names = {(True, True): "step beside a marker", (False, False): "step alone"}
        name = names.get(
            (was_finishing, self._clock.is_finishing), "step, a marker for a part of it"
        )
        self._clock.add(name, (time.perf_counter() - wall, time.thread_time() - cpu))


@contextmanager
def measured(clock: Clock) -> Iterator[None]:
    """Time a checkpoint's parts while the block runs."""
    originals = (
        (SmolVLMTrainer, "_save_checkpoint", "held up: a save in all"),
        (CheckpointFinisher, "begin", "held up: of it, waiting for the marker before"),
        (SmolVLMTrainer, "_save", "held up: of it, weights and processor"),
        (SmolVLMTrainer, "_save_optimizer_and_scheduler", "held up: of it, the optimizer's state"),
        (CheckpointFinisher, "_finish", "on the thread: syncing, digests, marker, deletion"),
    )
    kept = [(owner, name, getattr(owner, name)) for owner, name, _ in originals]

    def timed(work: Any, title: str) -> Any:
        on_thread = title.startswith("on the thread")

        def call(*arguments: Any, **options: Any) -> Any:
            clock.is_finishing |= on_thread
            with clock.timing(title, time.thread_time):
                result = work(*arguments, **options)
            clock.is_finishing &= not on_thread
            return result

        return call

    for owner, name, title in originals:
        setattr(owner, name, timed(getattr(owner, name), title))
    try:
        yield
    finally:
        for owner, name, method in kept:
            setattr(owner, name, method)


def run(folder: Path, *, num_steps: int, every: int, is_tiny: bool) -> Clock:
    """Train, and return what was measured."""
    write_model(folder / "model", is_tiny=is_tiny)
    rows = [{"question": f"What is {n} plus 1?", "answer": str(n + 1)} for n in range(64)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model": {"path": str(folder / "model")},
        "data": {
            "mixture": [{"json_path": str(folder / "rows.jsonl")}],
            "max_tokens_per_pack": 128,
        },
        "train": {
            "output_dir": str(folder / "out"),
            "vision_tower_lr": 1e-6,
            "max_steps": num_steps,
            "packs_per_step": 1,
            "use_cpu": True,
            "save_strategy": "steps",
            "save_steps": every,
            "save_total_limit": 1,
        },
    }
    clock = Clock()
    with measured(clock):
        api.train(api.load_config(settings), callbacks=[Steps(clock)])
    return clock


def main() -> None:
    """Print each occasion as it comes, and then a line for each thing that was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; 8 GB")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--every", type=int, default=6)
    parser.add_argument("--tiny", action="store_true", help="shows that it works, no more")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        clock = run(
            Path(folder), num_steps=options.steps, every=options.every, is_tiny=options.tiny
        )
    print("\n".join(["", *clock.lines()]))


if __name__ == "__main__":
    main()
