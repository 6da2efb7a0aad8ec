"""`python -m benchmarks.plan_memory`: what `smolvlm plan` says of memory and time beside what
processes that train need.

Eight runs at the 256M model's widths with fewer layers and random weights: full, LoRA, QLoRA in 8
and 4 bits, frozen tower, checkpointing, DPO, video. Each trains a few steps in a process of its
own, which notes its resident memory before it begins, the peak while it loads, and the peak and the
CPU time of each step. The machine is measured before each run and after it, since others may use it
meanwhile; the time that is compared is the mean of what was planned with both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import SmolVLMForConditionalGeneration, TrainerCallback

from benchmarks.rows import Row, read_rows, write_rows
from smolvlm.build.checkpoint import write_checkpoint
from smolvlm.build.configs import (
    PUBLISHED_LANGUAGE_MODELS,
    PUBLISHED_TOWERS,
    build_config,
    tile_side_px,
)
from smolvlm.build.processor import PictureSettings
from smolvlm.config.load import load_run_config
from smolvlm.disk.atomic_files import making_folder
from smolvlm.plan.calibration import machine
from smolvlm.plan.run_plan import RunPlan
from smolvlm.runs.planning import planner_of

LORA: dict[str, Any] = {"adapters.language.type": "lora", "adapters.language.r": 8}
TRAINED: dict[str, Any] = {"train.vision_tower_lr": 1e-5}
RUNS: Mapping[str, dict[str, Any]] = {
    "full": TRAINED,
    "checkpointing": TRAINED | {"train.activation_checkpointing": True},
    "frozen tower": {},
    "lora": LORA | {"train.connector_lr": 0},
    "qlora, 8 bits": LORA | {"train.connector_lr": 0, "quantization.bits": 8},
    "qlora, 4 bits": LORA | {"train.connector_lr": 0, "quantization.bits": 4},
    "dpo": {"data.mixture": [{"path": "pairs.jsonl"}], "train.method": "dpo"},
    "video": {"data.mixture": [{"path": "clips.jsonl"}], "data.max_frames": 4},
}
"""What each run sets over the common settings of `write_run`."""
NUM_PICTURES = 24
TOLERANCE = 0.1
EXIT_IS_OFF = 3


def write_model(folder: Path, *, vision_layers: int, language_layers: int) -> None:
    """Write a checkpoint of the 256M widths with fewer layers, random weights."""
    config = build_config(
        replace(PUBLISHED_TOWERS["siglip-base-512"], num_layers=vision_layers),
        replace(PUBLISHED_LANGUAGE_MODELS["smollm2-135m"], num_layers=language_layers),
        scale_factor=4,
        model_type="smolvlm",
    )
    torch.manual_seed(0)
    pictures = PictureSettings(longest_edge_px=tile_side_px(config))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with making_folder(folder) as made:
        model = SmolVLMForConditionalGeneration(config)
        write_checkpoint(made, model, model_type="smolvlm", pictures=pictures)


def write_data(folder: Path) -> None:
    """Write rows about pictures, pairs of answers, and clips as folders of frames."""
    rows = read_rows(write_rows(folder, num_pictures=NUM_PICTURES, questions_per_picture=2, seed=0))
    pairs = [
        {
            "prompt": row.question,
            "chosen": row.answer,
            "rejected": rejected_answer(row),
            "images": [row.image.name],
        }
        for row in rows
    ]
    _write_lines(folder / "pairs.jsonl", pairs)
    clips: list[dict[str, object]] = []
    for number in range(NUM_PICTURES // 4):
        clip = folder / f"clip_{number}"
        clip.mkdir()
        for frame, row in enumerate(rows[8 * number : 8 * number + 8 : 2]):
            with Image.open(row.image) as picture:
                picture.resize((512, 512)).save(clip / f"{frame:03d}.jpg")
        row = rows[8 * number]
        clips.append({"question": row.question, "answer": row.answer, "video": clip.name})
    _write_lines(folder / "clips.jsonl", clips)


def rejected_answer(row: Row) -> str:
    """Return a worse answer: the words of the better one backwards."""
    return " ".join(reversed(row.answer.split())) + ", perhaps"


def _write_lines(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_run(folder: Path, name: str, *, steps: int, changes: Sequence[str] = ()) -> Path:
    """Write the run file of one of `RUNS` beside model and data; `changes` are overrides."""
    sections: dict[str, Any] = {
        "model": {"path": "model"},
        "data": {
            "mixture": [{"path": "rows.jsonl"}],
            "max_tokens_per_pack": 1024,
            "max_tiles_per_pack": 4,
            "image_splitting": False,
        },
        "train": {
            "output_dir": str(folder / "runs" / name.replace(" ", "_")),
            "packs_per_step": 1,
            "max_steps": steps,
            "save_strategy": "no",
            "resume_from_checkpoint": False,
            "use_cpu": True,
            "logging_steps": 1,
        },
    }
    written = {key: json.loads(value) for key, value in (one.split("=", 1) for one in changes)}
    for key, value in (RUNS[name] | written).items():
        section = sections
        *path, last = key.split(".")
        for part in path:
            section = section.setdefault(part, {})
        section[last] = value
    run_file = folder / f"{name.replace(' ', '_').replace(',', '')}.yaml"
    run_file.write_text(json.dumps(sections, indent=1), encoding="utf-8")
    return run_file


class _Notes(TrainerCallback):
    """Notes peak memory and CPU time of each step; the peak begins anew with each."""

    def __init__(self) -> None:
        self.load_bytes = 0
        self.steps: list[dict[str, float]] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if not self.steps:
            self.load_bytes = peak_bytes()
        forget_peak()
        self._began = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.steps.append({"cpu_s": time.process_time() - self._began, "peak_bytes": peak_bytes()})


def peak_bytes() -> int:
    """Return the peak of resident memory since `forget_peak`."""
    return _status("VmHWM")


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(key)


def forget_peak() -> None:
    """Let the peak begin at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(run_file: Path) -> dict[str, Any]:
    """Train a run in this process and return what it needed, bytes and seconds."""
    from smolvlm.runs.training import train_and_report

    config = load_run_config(run_file)
    notes = _Notes()
    base = _status("VmRSS")
    train_and_report(config, callbacks=[notes])
    return {"base_bytes": base, "load_bytes": notes.load_bytes, "steps": notes.steps}


def measured_apart(run_file: Path) -> dict[str, Any]:
    """Do `measure` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.plan_memory", "--measure", str(run_file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def predicted(run_file: Path) -> RunPlan:
    """Plan a run for one thread of this machine."""
    return planner_of(load_run_config(run_file)).plan(compares=False)


def row(name: str, plans: Sequence[RunPlan], measured: Mapping[str, Any]) -> str:
    """Return a line: memory, and CPU time of all steps, planned and measured.

    Args:
        name: of the run.
        plans: before it and after it.
        measured: what it took.
    """
    plan = plans[0]
    peak = max(step["peak_bytes"] for step in measured["steps"])
    cpu_s = sum(step["cpu_s"] for step in measured["steps"])
    planned_s = statistics.mean(one.time.total_s - one.time.before_s for one in plans)
    return (
        f"{name:<16}{plan.memory.total / 1e6:>10,.0f}{peak / 1e6:>10,.0f}"
        f"{plan.memory.total / peak - 1:>+9.1%}{planned_s:>10.1f}{cpu_s:>10.1f}"
        f"{planned_s / cpu_s - 1:>+9.1%}{measured['base_bytes'] / 1e6:>12,.0f}"
    )


HEAD = (
    f"{'':<16}{'MB plan':>10}{'measured':>10}{'':>9}{'CPU s plan':>10}{'measured':>10}{'':>9}"
    f"{'imports, MB':>12}"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line a run; exit status 3 where memory is off by more than a tenth."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plan_memory", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--measure", type=Path, help="train this run file here; say what it took")
    parser.add_argument("--only", choices=list(RUNS), action="append")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--layers", type=int, nargs=2, default=(4, 8), help="tower's, language's")
    parser.add_argument("--set", nargs="*", default=[], help="settings over every run's")
    options = parser.parse_args(arguments)
    if options.measure is not None:
        print(json.dumps(measure(options.measure)))
        return 0
    torch.set_num_threads(1)
    is_off = False
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-") as work:
        folder = Path(work)
        vision_layers, language_layers = options.layers
        write_model(folder / "model", vision_layers=vision_layers, language_layers=language_layers)
        write_data(folder)
        machine(anew=True)
        print(HEAD, flush=True)
        for name in options.only or RUNS:
            run_file = write_run(folder, name, steps=options.steps, changes=options.set)
            plan, measured = predicted(run_file), measured_apart(run_file)
            machine(anew=True)
            print(row(name, [plan, predicted(run_file)], measured), flush=True)
            peak = max(step["peak_bytes"] for step in measured["steps"])
            is_off |= abs(plan.memory.total / peak - 1) > TOLERANCE
    return EXIT_IS_OFF if is_off else 0


if __name__ == "__main__":
    sys.exit(main())
