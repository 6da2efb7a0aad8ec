"""Stage 3: does a training step wait for the GPU anywhere? In four situations, with lines.

Ten steps each of the real trainer: supervised with everything trained; with a frozen tower, its
cache empty, then full; preferences. The product's `train` runs as from the command line, with
loader workers, and a callback switches PyTorch's debug mode on for ten steps after the warm-up.
Each place that waits is reported with its line; the stage fails if there is any. What is logged
every so many steps, and so waits every so many steps, lies outside of the ten.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from transformers import TrainerCallback

import smolvlm.train.train as product
from gpu_check.contract import CheckFailed, CheckSkipped, Report, Settings
from gpu_check.material.models import model_config, write_folder
from gpu_check.material.rows import Counts, RowWriter
from gpu_check.material.runs import ALL_TRAINED, planned_dataset, write_run
from gpu_check.sync_watch import SyncCount, collected_warnings
from smolvlm.build.configs import tile_side_px
from smolvlm.config.load import load_run_config

NUM_WATCHED = 10
WARMUP = 4
"""Steps of an epoch before: kernels compile, the allocator grows."""
NUM_LAYERS = 2


class WatchSteps(TrainerCallback):
    """Watches ten steps from each of some step numbers on."""

    def __init__(self, starts: Sequence[int]) -> None:
        self.counts: list[SyncCount] = []
        self._starts = frozenset(starts)
        self._ends = frozenset(start + NUM_WATCHED for start in starts)

    def on_step_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        if state.global_step in self._starts:
            self.counts.append(SyncCount())
            self._collecting = collected_warnings(self.counts[-1])
            self._collecting.__enter__()
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("warn")

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        if state.global_step in self._ends:
            torch.cuda.set_sync_debug_mode("default")
            self._collecting.__exit__(None, None, None)


def run(settings: Settings, report: Report) -> None:
    """Watch the four situations.

    Raises:
        CheckSkipped: on a CPU nothing is waited for.
        CheckFailed: a step waits; the report lists where.
    """
    if settings.device == "cpu":
        raise CheckSkipped("a CPU has nothing that a step could wait for")
    torch.set_warn_always(True)
    config = model_config("256M", is_tiny=settings.is_tiny, num_layers=NUM_LAYERS)
    model_dir = write_folder(settings.work_dir / "model", config, settings.device, tiles_a_side=1)
    writers = {
        name: RowWriter(settings.work_dir / name, picture_side_px=tile_side_px(config))
        for name in ("answers", "preferences")
    }
    answers = writers["answers"].write(Counts(texts=60, pictures=60, questions=2, pairs=12))
    preferences = writers["preferences"].write(Counts(preferences=120))
    frozen = {**ALL_TRAINED, "vision_tower_lr": 0.0}
    totals = {}
    for name, mixture, epochs, train in (
        ("all_trained", answers, ("steps",), ALL_TRAINED),
        ("frozen_tower", answers, ("cache_empty", "cache_full"), frozen),
        ("dpo", preferences, ("steps",), {**frozen, "method": "dpo"}),
    ):
        started = time.perf_counter()
        run_file = _run_file(
            settings.work_dir / name, model_dir, mixture, train, num_epochs=len(epochs)
        )
        for epoch, count in zip(epochs, _watched(run_file), strict=True):
            found = f"{name} {epoch}"
            totals[found] = count.num_in_steps
            report.add(
                **{found: {"waits_in_ten_steps": count.num_in_steps, "places": count.listed()}}
            )
        report.add(**{f"{name} seconds": time.perf_counter() - started})
    if any(totals.values()):
        told = ", ".join(f"{name} {total}" for name, total in totals.items())
        raise CheckFailed(f"steps wait for the GPU; times in ten steps: {told}")


def _run_file(
    folder: Path,
    model_dir: Path,
    mixture: list[dict[str, Any]],
    train: dict[str, Any],
    *,
    num_epochs: int,
) -> Path:
    """Write a run of bf16 autocast, two workers and enough packs for each epoch."""
    return write_run(
        folder,
        model_dir=model_dir,
        mixture=mixture,
        data={"max_tokens_per_pack": 768, "max_tiles_per_pack": 8},
        train={
            **train,
            "packs_per_step": 1,
            "bf16": True,
            "num_train_epochs": num_epochs,
            "logging_steps": 10_000,
            "dataloader_num_workers": 2,
        },
    )


def _watched(run_file: Path) -> list[SyncCount]:
    """Train as the run file says and return what was noted in each epoch."""
    ends = planned_dataset(run_file, "cuda").plan.epoch_ends
    begins = (0, *ends[:-1])
    assert all(end - begin > WARMUP + NUM_WATCHED for begin, end in zip(begins, ends, strict=True))
    watch = WatchSteps([begin + WARMUP for begin in begins])
    with trainer_with(watch):
        product.train(load_run_config(run_file))
    return watch.counts


@contextmanager
def trainer_with(callback: TrainerCallback) -> Iterator[None]:
    """Let `train` make its trainer with one callback more."""

    class Watched(product.SmolVLMTrainer):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.add_callback(callback)

    with patch.object(product, "SmolVLMTrainer", Watched):
        yield
