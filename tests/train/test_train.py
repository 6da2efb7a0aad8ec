"""A whole run on the tiny model: what it learns, what it changes, and what it leaves behind."""

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.checkpoints.learning_rates import LearningRates
from smolvlm.config.load import load_run_config
from smolvlm.model.towers import TOWERS, tower_of
from smolvlm.train.plan_notes import plan_summary
from smolvlm.train.planned_rows import plan_run
from smolvlm.train.run_model import learning_rates

STEP_KEYS = {
    "step",
    "epoch",
    "loss",
    "grad_norm",
    "learning_rate_vision_tower",
    "learning_rate_connector",
    "learning_rate_language_model",
    "num_tokens",
    "num_supervised_tokens",
    "num_tiles",
    "num_samples",
    "num_skipped",
    "pack_fill",
    "samples_per_s",
    "tokens_per_s",
    "supervised_tokens_per_s",
    "tiles_per_s",
    "mfu",
    "peak_memory_gb",
    "data_wait",
}
CHECKPOINT_FILES = {"config.json", "model.safetensors", "processor_config.json", "tokenizer.json"}


def test_the_loss_falls_and_every_planned_step_is_logged_with_every_key(frozen_run: Any) -> None:
    plan = frozen_run.trained.planned.plan
    assert [row["step"] for row in frozen_run.steps] == list(range(1, plan.num_steps + 1))
    assert frozen_run.trained.trainer.state.global_step == plan.num_steps
    assert all(set(row) == STEP_KEYS for row in frozen_run.steps)
    assert sum(frozen_run.losses[-5:]) < sum(frozen_run.losses[:5]) - 5 * 0.5
    assert [row["epoch"] for row in frozen_run.steps] == pytest.approx(
        [2 * step / plan.num_steps for step in range(1, plan.num_steps + 1)]
    )


def test_logged_counts_are_the_plans(plain_run: Any) -> None:
    plan, lengths = plain_run.trained.planned.plan, plain_run.trained.planned.measured.lengths
    dataset = plain_run.trained.trainer.train_dataset
    assert any(not pack.samples for pack in plan.packs)
    for number, row in enumerate(plain_run.steps):
        packs = [pack for pack in plan.packs[4 * number : 4 * number + 4] if pack.samples]
        rows = [member for pack in packs for members in pack.samples for member in members]
        assert row["num_tokens"] == sum(pack.num_tokens for pack in packs)
        assert row["num_supervised_tokens"] == lengths.num_supervised_tokens[rows].sum()
        assert row["num_samples"] == len(rows)
        distinct = sum(len(dataset.build(pack).tiles) for pack in packs)
        assert row["num_tiles"] == distinct <= sum(pack.num_tiles for pack in packs)
        assert row["pack_fill"] == pytest.approx(row["num_tokens"] / (128 * len(packs)), abs=1e-4)
        assert row["num_skipped"] == 0
        assert row["grad_norm"] > 0
        assert row["peak_memory_gb"] > 0
        assert 0 <= row["mfu"] < 1


def test_each_row_is_learned_from_exactly_once_an_epoch(frozen_run: Any) -> None:
    rows = [
        json.loads(line) for line in (frozen_run.folder / "samples.jsonl").read_text().splitlines()
    ]
    half, end = frozen_run.trained.planned.plan.epoch_ends
    assert [row["step"] for row in rows] == list(range(1, end + 1))
    wanted = Counter(row.where for row in frozen_run.trained.planned.measured.conversations)
    assert set(wanted.values()) == {1}
    for epoch in (rows[:half], rows[half:]):
        assert Counter(where for row in epoch for where in row["where"]) == wanted


def test_run_yaml_loads_back_equal(frozen_run: Any) -> None:
    assert load_run_config(frozen_run.folder / "run.yaml") == load_run_config(
        frozen_run.folder.parent / "run.yaml"
    )


def test_checkpoints_hold_weights_processor_optimizer_and_state(frozen_run: Any) -> None:
    folders = {path.name for path in frozen_run.folder.glob("checkpoint-*")}
    last = len(frozen_run.steps)
    assert folders == {f"checkpoint-{step}" for step in (*range(6, last, 6), last)}
    for name in folders:
        files = {path.name for path in (frozen_run.folder / name).iterdir()}
        assert files >= CHECKPOINT_FILES | {
            "optimizer.pt",
            "scheduler.pt",
            "trainer_state.json",
            "smolvlm.json",
        }
    assert {path.name for path in frozen_run.folder.iterdir()} >= CHECKPOINT_FILES | {
        "metrics.jsonl",
        "samples.jsonl",
    }


def test_the_final_model_answers_in_plain_transformers(frozen_run: Any) -> None:
    model: Any = AutoModelForImageTextToText.from_pretrained(frozen_run.folder)
    assert type(model).__module__.startswith("transformers.")
    trained = frozen_run.trained.checkpoint.model.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
    processor: Any = AutoProcessor.from_pretrained(frozen_run.folder)
    assert processor.image_processor.size["longest_edge"] == 64
    batch = processor(
        text="<image>What?", images=[[Image.new("RGB", (60, 40), "red")]], return_tensors="pt"
    )
    assert batch["pixel_values"].shape[1] == 5
    assert (
        model.generate(**batch, max_new_tokens=2, min_new_tokens=2, do_sample=False).shape[0] == 1
    )


def test_frozen_weights_stay_to_the_bit_and_trained_ones_move(
    frozen_run: Any, tiny_folder: Path
) -> None:
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tiny_folder, frozen_run.folder)
    )
    assert before.keys() == after.keys()
    moved = {name: not torch.equal(before[name], after[name]) for name in before}
    assert {tower_of(name) for name, has_moved in moved.items() if has_moved} == {
        "connector",
        "language_model",
    }
    assert all(has_moved for name, has_moved in moved.items() if tower_of(name) != "vision_tower")


def test_a_trained_tower_moves_and_is_not_cached(plain_run: Any, tiny_folder: Path) -> None:
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tiny_folder, plain_run.folder)
    )
    moved = {tower_of(name) for name in before if not torch.equal(before[name], after[name])}
    assert moved == set(TOWERS)
    assert plain_run.trained.vision_cache is None
    assert not (plain_run.folder / "vision_cache").exists()


def test_logged_learning_rates_are_those_of_the_step(
    train_run: Callable[..., Any], words_alone: dict[str, Any], tmp_path: Path
) -> None:
    used: list[dict[str, float]] = []

    def note(optimizer: Optimizer, *_: Any) -> None:
        used.append(
            {
                f"learning_rate_{group['name']}": float(group["lr"])
                for group in optimizer.param_groups
            }
        )

    handle = register_optimizer_step_pre_hook(note)
    changes = {"train.vision_tower_lr": 1e-4, "train.packs_per_step": 1}
    try:
        run = train_run(
            tmp_path,
            words_alone | changes | {"train.warmup_steps": 2, "train.lr_scheduler_type": "cosine"},
        )
    finally:
        handle.remove()
    logged = [
        {name: value for name, value in row.items() if name.startswith("learning_rate")}
        for row in run.steps
    ]
    assert logged == used
    rest = len(used) - 2
    shares = [0.0, 0.5, *(0.5 * (1 + math.cos(math.pi * done / rest)) for done in range(rest))]
    assert [row["learning_rate_vision_tower"] for row in used] == pytest.approx(
        [1e-4 * share for share in shares]
    )
    assert [row["learning_rate_language_model"] for row in used] == pytest.approx(
        [1e-3 * share for share in shares]
    )


def test_the_same_command_again_changes_nothing(
    train_run: Callable[..., Any],
    words_alone: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = words_alone | {"train.save_strategy": "steps", "train.save_steps": 2}
    first = train_run(tmp_path, changes)
    weights, lines = (
        load_file(first.folder / "model.safetensors"),
        (first.folder / "metrics.jsonl").read_text(),
    )
    again = train_run(tmp_path, changes)
    told = (
        f"checkpoint-{len(first.steps)}\nall {len(first.steps)} steps are done: another "
        f"train.output_dir begins anew\n"
    )
    assert told in capsys.readouterr().err
    assert (again.folder / "metrics.jsonl").read_text() == lines
    after = load_file(again.folder / "model.safetensors")
    assert all(torch.equal(weights[name], after[name]) for name in weights)


def test_rates_by_tower_and_the_plan_in_words(frozen_run: Any) -> None:
    config = load_run_config(frozen_run.folder / "run.yaml")
    rates = learning_rates(config, frozen_run.trained.checkpoint.model.config)
    assert rates == LearningRates(
        full={"vision_tower": 0.0, "connector": 5e-4, "language_model": 1e-3}
    )
    prompt, planned = plan_run(config)
    assert planned.plan == frozen_run.trained.planned.plan
    assert prompt.media.pictures == frozen_run.trained.prompt.media.pictures
    first, second = plan_summary(planned).splitlines()
    lengths = planned.measured.lengths
    learned, tokens = lengths.num_supervised_tokens.sum(), lengths.num_tokens.sum()
    assert (
        first == f"{len(lengths)} rows, {learned:,} supervised of {tokens:,} tokens; 0 rows skipped"
    )
    assert second.startswith(f"{planned.plan.num_steps} steps, {len(planned.plan.packs)} packs, ")
    assert f" packs, {2 * len(lengths)} samples, " in second


def test_a_warmup_that_outlasts_the_run_is_said(
    train_run: Callable[..., Any],
    words_alone: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_run(tmp_path, words_alone | {"train.warmup_steps": 100, "train.num_train_epochs": 1})
    assert "note: train.warmup_steps=100 is not over when the run ends, after " in (
        capsys.readouterr().err
    )
