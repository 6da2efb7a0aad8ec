"""A run with loader workers, killed and started again, beside its unbroken twin.

Thirty steps, killed in the sixteenth. Both are `smolvlm train` in processes of their own, side by
side. The resumed run must go on from its checkpoint, take the same rows in every step, and end. On
a CPU losses must be equal to the bit; a GPU's sums have no fixed order, so there they must agree to
`LOSS_TOLERANCE`, and the report says how far they are apart.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_check.contract import CheckFailed, Report, Settings
from gpu_check.material.models import model_config, write_folder
from gpu_check.material.rows import Counts, RowWriter
from gpu_check.material.runs import ALL_TRAINED, write_run
from smolvlm.build.configs import tile_side_px
from smolvlm.parent_process import Parent

NUM_LAYERS = 2
LOSS_TOLERANCE = 1e-2
SIGKILL_CODE = -9


@dataclass(frozen=True, kw_only=True, slots=True)
class Length:
    """How long the runs are."""

    num_steps: int
    save_every: int
    killed_in_step: int


LENGTH = Length(num_steps=30, save_every=10, killed_in_step=16)
TINY_LENGTH = Length(num_steps=9, save_every=3, killed_in_step=5)


def run(settings: Settings, report: Report) -> None:
    """Train the twins and compare them.

    Raises:
        CheckFailed: a process ended otherwise than planned, or the resumed run is not the unbroken
            one.
    """
    length = TINY_LENGTH if settings.is_tiny else LENGTH
    config = model_config("256M", is_tiny=settings.is_tiny, num_layers=NUM_LAYERS)
    model_dir = write_folder(settings.work_dir / "model", config, settings.device, tiles_a_side=1)
    writer = RowWriter(settings.work_dir / "rows", picture_side_px=tile_side_px(config))
    mixture = writer.write(Counts(texts=40, pictures=24, questions=2))
    whole, killed = (
        _run_file(settings.work_dir / name, model_dir, mixture, length, settings.device)
        for name in ("whole", "killed")
    )
    started = time.perf_counter()
    twins = [_start([], whole), _start([str(length.killed_in_step)], killed)]
    _finish(twins[1], killed, expected=SIGKILL_CODE)
    report.add(killed_after_s=time.perf_counter() - started)
    _finish(_start([], killed), killed, expected=0)
    _finish(twins[0], whole, expected=0)
    report.add(both_done_after_s=time.perf_counter() - started)
    _compare(whole.parent, killed.parent, report, length, is_exact=settings.device == "cpu")


def _run_file(
    folder: Path, model_dir: Path, mixture: list[dict[str, Any]], length: Length, device: str
) -> Path:
    return write_run(
        folder,
        model_dir=model_dir,
        mixture=mixture,
        data={"max_tokens_per_pack": 1024 if device == "cuda" else 256, "max_tiles_per_pack": 8},
        train={
            **ALL_TRAINED,
            "packs_per_step": 2 if device == "cuda" else 1,
            "max_steps": length.num_steps,
            "logging_steps": 1,
            "log_sample_ids": True,
            "save_strategy": "steps",
            "save_steps": length.save_every,
            "save_total_limit": 1,
            "dataloader_num_workers": 2,
            "bf16": device == "cuda",
            "use_cpu": device == "cpu",
        },
    )


def _start(killed_in: list[str], run_file: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gpu_check.stages.dying_run", str(run_file), *killed_in]
    with (run_file.parent / "messages").open("ab") as messages:
        return subprocess.Popen(
            Parent.here().command(command),
            stdout=messages,
            stderr=messages,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )


def _finish(process: subprocess.Popen[bytes], run_file: Path, *, expected: int) -> None:
    code = process.wait()
    if code != expected:
        messages = (run_file.parent / "messages").read_text(errors="replace")
        print(messages, flush=True)
        lines = messages.strip().splitlines()
        told = " | ".join(line.strip() for line in lines[-6:])
        raise CheckFailed(f"a run ended with status {code}, not {expected}: {told}")


def _compare(whole: Path, killed: Path, report: Report, length: Length, *, is_exact: bool) -> None:
    saved = length.save_every
    messages = (killed / "messages").read_text(errors="replace")
    if f"checkpoint-{saved}" not in messages:
        raise CheckFailed(f"the second start did not go on from checkpoint-{saved}")
    expected, found = (
        [row for row in _rows(folder / "out" / "metrics.jsonl") if "loss" in row]
        for folder in (whole, killed)
    )
    numbers = [[row["step"] for row in rows] for rows in (expected, found)]
    if numbers[0] != numbers[1] or len(numbers[0]) != length.num_steps:
        raise CheckFailed(f"steps logged: {numbers[1]}, and {numbers[0]} without a kill")
    apart = [
        abs(one["loss"] - two["loss"]) / one["loss"]
        for one, two in zip(expected, found, strict=True)
    ]
    report.add(
        steps=len(found),
        first_and_last_loss=[found[0]["loss"], found[-1]["loss"]],
        losses_apart_before_kill=max(apart[:saved]),
        losses_apart_after=max(apart[saved:]),
    )
    if _rows(whole / "out" / "samples.jsonl") != _rows(killed / "out" / "samples.jsonl"):
        raise CheckFailed("the resumed run learned from other rows")
    if max(apart) > (0 if is_exact else LOSS_TOLERANCE):
        raise CheckFailed(
            f"losses of the resumed run are {max(apart):.1e} apart from the unbroken one's"
        )


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
