"""A run that is killed, moved to another folder with its data, and resumed there is the run that
was never stopped and never moved, to the last bit."""

import json
import shutil
import sys
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from smolvlm.checkpoints.peft_layers import ADAPTER_WEIGHTS
from smolvlm.config.load import load_run_config
from smolvlm.train.log import MEASURED_KEYS
from smolvlm.train.train import train
from tests.train.runs_apart import runs_apart

KILLED_IN_STEP, CHECKPOINT, NUM_STEPS = 5, 4, 7
CHILD_TIMEOUT_S = 400
RUNS: dict[str, dict[str, dict[str, Any]]] = {
    "cached": {"train": {"connector_lr": 5e-4}},
    "adapter": {
        "train": {"vision_tower_lr": 1e-4},
        "adapters": {"language": {"type": "lora", "dropout": 0.1}, "vision": "lora"},
    },
    "preference": {"train": {"method": "dpo", "beta": 0.5}},
    "quantised": {
        "adapters": {"language": "lora"},
        "quantization": {"bits": 4},
        "train": {"method": "dpo", "reference": "adapter_off", "connector_lr": 0.0},
    },
}


def write_folder(
    folder: Path, model: Path, photos: dict[str, Path], sections: dict[str, dict[str, Any]]
) -> Path:
    """Write a folder that holds a run and all that it reads, named from the folder; return the run
    file."""
    shutil.copytree(model, folder / "model")
    (folder / "pictures").mkdir()
    for path in photos.values():
        shutil.copy(path, folder / "pictures" / path.name)
    is_preference = sections.get("train", {}).get("method") == "dpo"
    rows = [
        {"image": path.name, "question": f"What is {number}?", "answer": f"{name} {number}"}
        for number in range(2)
        for name, path in photos.items()
    ]
    if is_preference:
        rows = [
            {
                "image": row["image"],
                "prompt": f"<image>{row['question']}",
                "chosen": row["answer"],
                "rejected": "I do not know.",
            }
            for row in rows
        ]
    (folder / "rows").mkdir()
    (folder / "rows" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "mixture.yaml").write_text(
        yaml.safe_dump([{"json_path": "rows/train.jsonl", "path": "pictures"}])
    )
    settings: dict[str, dict[str, Any]] = {
        "model": {"path": "./model"},
        "data": {"mixture": "mixture.yaml", "max_tokens_per_pack": 128, "longest_edge_px": 64},
        "train": {
            "output_dir": "out",
            "language_model_lr": 1e-3,
            "packs_per_step": 2,
            "max_steps": NUM_STEPS,
            "use_cpu": True,
            "logging_steps": 1,
            "save_strategy": "steps",
            "save_steps": CHECKPOINT,
            "log_sample_ids": True,
            "disable_tqdm": True,
        },
    }
    for section, values in sections.items():
        settings[section] = settings.get(section, {}) | values
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return folder / "run.yaml"


@pytest.fixture(scope="module")
def relocated(
    tiny_folder: Path, photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Path]]:
    """By name: the output folder of a run that was killed and moved, and that of its twin."""
    root = tmp_path_factory.mktemp("relocated")
    target = root / "elsewhere" / "deeper down"
    target.mkdir(parents=True)
    files = [
        write_folder(root / "first" / name, tiny_folder, photos, sections)
        for name, sections in RUNS.items()
    ]
    with runs_apart(
        "relocated_runs.py", KILLED_IN_STEP, target, *files, logs=target, timeout_s=CHILD_TIMEOUT_S
    ):
        for name, sections in RUNS.items():
            twin = write_folder(root / "twins" / name, tiny_folder, photos, sections)
            with chdir(twin.parent):  # from which `train.output_dir` starts
                train(load_run_config(twin), say=lambda text: print(text, file=sys.stderr))
    assert not any((root / "first").iterdir())
    return {name: (target / name / "out", root / "twins" / name / "out") for name in RUNS}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", RUNS)
def test_it_went_on_from_the_checkpoint_in_the_new_folder(
    relocated: dict[str, tuple[Path, Path]], name: str
) -> None:
    moved, _ = relocated[name]
    messages = (moved.parent / "again.log").read_text()
    assert f"resuming from {moved / f'checkpoint-{CHECKPOINT}'}\n" in messages
    assert f"step {CHECKPOINT + 1}/" in messages
    assert f"step {CHECKPOINT}/" not in messages


@pytest.mark.parametrize("name", RUNS)
def test_losses_and_metrics_are_equal_to_the_last_bit(
    relocated: dict[str, tuple[Path, Path]], name: str
) -> None:
    ours, theirs = (
        [
            {key: value for key, value in row.items() if key not in MEASURED_KEYS}
            for row in rows(folder / "metrics.jsonl")
            if "loss" in row
        ]
        for folder in relocated[name]
    )
    assert [row["step"] for row in ours] == list(range(1, NUM_STEPS + 1))
    assert ours == theirs


@pytest.mark.parametrize("name", RUNS)
def test_the_same_rows_were_learned_from_in_every_step(
    relocated: dict[str, tuple[Path, Path]], name: str
) -> None:
    ours, theirs = (
        [
            [where.removeprefix(f"{folder.parent}/") for where in row["where"]]
            for row in rows(folder / "samples.jsonl")
        ]
        for folder in relocated[name]
    )
    assert ours == theirs
    assert all(where.startswith("rows/train.jsonl:") for step in theirs for where in step)


@pytest.mark.parametrize("name", RUNS)
def test_the_weights_are_equal_to_the_last_bit(
    relocated: dict[str, tuple[Path, Path]], name: str
) -> None:
    file = ADAPTER_WEIGHTS if "adapters" in RUNS[name] else "model.safetensors"
    ours, theirs = (load_file(folder / file) for folder in relocated[name])
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


def test_the_vision_cache_went_on_where_it_was_moved_to(
    relocated: dict[str, tuple[Path, Path]],
) -> None:
    """Its file is named by the tower's weights, so one that was begun anew would stand beside."""
    ours, theirs = (
        [path.name for path in (folder / "vision_cache").iterdir()]
        for folder in relocated["cached"]
    )
    assert ours == theirs
    assert len(ours) == 1
