"""The laws of a step: packs, accumulation, caches and checkpointing change how fast it is, never
what is learned."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

from smolvlm.config.checkpointing import Checkpointing
from smolvlm.errors import SampleError
from smolvlm.model import modeling_smolvlm
from smolvlm.model.vision import run_tower
from smolvlm.train.checkpoint_folder import MARKER, whole_checkpoints
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer

TrainRun = Callable[..., Any]

ONE_STEP = {
    "train.num_train_epochs": 1,
    "train.optim": "sgd",
    "train.max_grad_norm": 100.0,
    "train.language_model_lr": 1.0,
    "train.connector_lr": 1.0,
    "train.vision_tower_lr": 1.0,
}
"""All rows in one step of plain descent: the weights after it tell the gradient."""


def largest_difference(left: Path, right: Path) -> float:
    """Return the largest |difference| of a weight, of the largest movement of one."""
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (left, right))
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def test_many_small_packs_learn_what_one_large_pack_learns(
    train_run: TrainRun, tiny_folder: Path, tmp_path: Path
) -> None:
    common = ONE_STEP | {"data.loss_weighting": "sqrt"}
    many = train_run(tmp_path / "many", common | {"train.packs_per_step": 12})
    large = {
        "data.max_tokens_per_pack": 4096,
        "data.max_tiles_per_pack": 256,
        "train.packs_per_step": 1,
    }
    one = train_run(tmp_path / "one", common | large)
    assert (len(many.steps), len(one.steps)) == (1, 1)
    assert sum(bool(pack.samples) for pack in many.trained.planned.plan.packs) > 8
    assert many.losses[0] == pytest.approx(one.losses[0], rel=1e-6)
    assert many.steps[0]["grad_norm"] == pytest.approx(one.steps[0]["grad_norm"], rel=1e-5)
    assert largest_difference(many.folder, tiny_folder) > 0.1
    assert largest_difference(many.folder, one.folder) < 1e-5


def test_weights_decay_as_asked_and_norms_and_biases_do_not(
    train_run: TrainRun, tiny_folder: Path, words_alone: dict[str, Any], tmp_path: Path
) -> None:
    """AdamW takes rate x decay of a weight off it, besides the step: what decay changes is that
    product exactly."""
    rate, decay = 1e-2, 0.5
    constant = {
        "train.language_model_lr": rate,
        "train.lr_scheduler_type": "constant",
        "train.packs_per_step": 12,
        "train.num_train_epochs": 1,
    }
    left = {
        name: train_run(tmp_path / name, words_alone | constant | own).folder
        for name, own in {"none": {}, "decayed": {"train.weight_decay": decay}}.items()
    }
    before, without, decayed = (
        load_file(own / "model.safetensors") for own in (tiny_folder, left["none"], left["decayed"])
    )
    matrix, norm = (
        "model.text_model.layers.0.mlp.up_proj.weight",
        "model.text_model.layers.0.input_layernorm.weight",
    )
    torch.testing.assert_close(
        without[matrix] - decayed[matrix], rate * decay * before[matrix], rtol=1e-3, atol=1e-6
    )
    assert not torch.equal(without[matrix], before[matrix])
    assert torch.equal(without[norm], decayed[norm])


@pytest.mark.parametrize("choice", [True, "language_model", "vision_tower"])
def test_activation_checkpointing_gives_the_same_losses(
    train_run: TrainRun, plain_run: Any, tmp_path: Path, choice: Checkpointing
) -> None:
    plain = {"train.vision_tower_lr": 2e-4, "train.num_train_epochs": 4, "train.packs_per_step": 4}
    run = train_run(tmp_path, plain | {"train.activation_checkpointing": choice})
    trained = run.trained.checkpoint.model.model
    is_on = {
        "vision_tower": trained.vision_model.is_activation_checkpointing,
        "language_model": trained.text_model.is_activation_checkpointing,
    }
    assert is_on == {tower: choice in (True, tower) for tower in is_on}
    assert run.losses == pytest.approx(plain_run.losses, rel=1e-6)


def test_a_run_may_be_resumed_with_another_choice_of_checkpointing(
    train_run: TrainRun, tmp_path: Path
) -> None:
    """What is computed again has the bits of what would have been kept."""
    changes = {"train.vision_tower_lr": 2e-4, "train.num_train_epochs": 1}
    saving = changes | {"train.save_strategy": "steps", "train.save_steps": 2}
    whole = train_run(tmp_path / "whole", changes)
    for choice in (False, "language_model"):
        key = "train.activation_checkpointing"
        resumed = train_run(tmp_path / "resumed", saving | {key: choice})
        if not choice:
            for folder in resumed.folder.glob("checkpoint-*"):
                if folder.name != "checkpoint-2":
                    shutil.rmtree(folder)
    assert resumed.trained.checkpoint.model.is_activation_checkpointing
    assert resumed.losses == whole.losses
    found, expected = (load_file(run.folder / "model.safetensors") for run in (resumed, whole))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_bf16_autocast_trains_float32_weights(
    train_run: TrainRun, plain_run: Any, tmp_path: Path
) -> None:
    changes = {"train.vision_tower_lr": 2e-4, "train.packs_per_step": 4, "train.bf16": True}
    run = train_run(
        tmp_path, changes | {"train.lr_scheduler_type": "constant", "train.num_train_epochs": 1}
    )
    assert {value.dtype for value in run.trained.checkpoint.model.parameters()} == {torch.float32}
    assert run.losses == pytest.approx(plain_run.losses[:3], rel=0.02)
    assert run.losses != plain_run.losses[:3]
    assert run.losses[-1] < run.losses[0] - 0.2


@pytest.mark.parametrize("connector_lr", [1e-3, 0.0], ids=["tower cached", "connector cached too"])
def test_cached_features_change_no_loss_and_the_second_epoch_computes_no_tile(
    train_run: TrainRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connector_lr: float
) -> None:
    computed = [0]  # tiles by step

    def counted(tower: Any, pixel_values: torch.Tensor, *others: Any) -> torch.Tensor:
        computed[-1] += len(pixel_values)
        return run_tower(tower, pixel_values, *others)

    monkeypatch.setattr(modeling_smolvlm, "run_tower", counted)
    handle = register_optimizer_step_post_hook(lambda *_: computed.append(0))
    changes = {"train.connector_lr": connector_lr, "train.packs_per_step": 2}
    try:
        cached = train_run(tmp_path / "cached", changes)
    finally:
        handle.remove()
    cache, (first_epoch_steps, _) = (
        cached.trained.vision_cache,
        cached.trained.planned.plan.epoch_ends,
    )
    assert cache is not None
    assert cache.layout.stage == ("connector" if connector_lr == 0 else "tower")
    assert sum(computed[:first_epoch_steps]) == cache.count() == len(set(tiles_shown(cached)))
    assert sum(computed[first_epoch_steps:]) == 0

    computed[:] = [0]
    without = train_run(tmp_path / "without", changes | {"data.vision_cache": False})
    assert computed[0] > 2 * cache.count()
    assert not (without.folder / "vision_cache").exists()
    assert cached.losses == pytest.approx(without.losses, rel=1e-6)
    assert [row["num_tiles"] for row in cached.steps] == [row["num_tiles"] for row in without.steps]


def tiles_shown(run: Any) -> list[tuple[str, int]]:
    dataset = run.trained.trainer.train_dataset
    return [
        (image.name, tile)
        for row in dataset.measured.conversations
        for image, grid in zip(row.media, dataset.layouts(row), strict=True)
        for tile in range(grid.num_tiles)
    ]


@pytest.fixture
def spoiled(
    settings: dict[str, Any], photos: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> dict[str, Any]:
    """Changes that make a run read rows of which one photograph's pixels are cut off behind a sound
    header."""
    folder = tmp_path / "rows"
    shutil.copytree(rows_folder, folder)
    whole = photos["camera"].read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    rows = (
        (folder / "photos.jsonl")
        .read_text()
        .replace(str(photos["camera"]), str(folder / "cut.png"))
    )
    (folder / "photos.jsonl").write_text(rows)
    sources = [{"json_path": str(folder / f"{name}.jsonl")} for name in ("photos", "words")]
    return {"data.mixture": sources, "train.packs_per_step": 1}


@pytest.mark.filterwarnings(
    "ignore:This process:DeprecationWarning"
)  # of Python 3.12: the loader forks its workers
@pytest.mark.parametrize("num_workers", [0, 1])
def test_corrupt_pixels_stop_the_run_and_name_the_row(
    train_run: TrainRun, tmp_path: Path, spoiled: dict[str, Any], num_workers: int
) -> None:
    with pytest.raises(SampleError) as caught:
        train_run(tmp_path / "run", spoiled | {"train.dataloader_num_workers": num_workers})
    file = spoiled["data.mixture"][0]["json_path"]
    assert str(caught.value).startswith((f"{file}:10: ", f"{file}:11: ", f"{file}:12: "))
    assert "Traceback" not in str(caught.value)
    assert (tmp_path / "run" / "out" / "metrics.jsonl").exists(), "the steps before it were made"


def test_corrupt_rows_are_left_out_and_counted_once_however_many_epochs(
    train_run: TrainRun, tmp_path: Path, spoiled: dict[str, Any]
) -> None:
    skipping = {
        "data.on_bad_sample": "skip",
        "data.max_bad_fraction": 0.1,
    }  # 3 of 39 rows; 6 would be too many
    run = train_run(tmp_path / "run", spoiled | skipping)
    bad = {f"{spoiled['data.mixture'][0]['json_path']}:{row}" for row in (10, 11, 12)}
    assert sum(row["num_skipped"] for row in run.steps) == 2 * 3
    assert sum(row["num_samples"] for row in run.steps) == 2 * (39 - 3)
    learned = [
        json.loads(line)["where"]
        for line in (run.folder / "samples.jsonl").read_text().splitlines()
    ]
    assert len(learned) == len(run.steps) == run.trained.planned.plan.num_steps
    assert not bad & {where for step in learned for where in step}


def test_too_many_corrupt_rows_are_an_error_all_the_same(
    train_run: TrainRun, tmp_path: Path, spoiled: dict[str, Any]
) -> None:
    with pytest.raises(
        SampleError, match=r"3 of 39 rows cannot be used, more than max_bad_fraction=0\.05"
    ):
        train_run(
            tmp_path / "run",
            spoiled | {"data.on_bad_sample": "skip", "data.max_bad_fraction": 0.05},
        )


def test_an_older_checkpoint_is_deleted_only_once_the_newer_one_is_whole(
    train_run: TrainRun,
    words_alone: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved = {"train.save_strategy": "steps", "train.save_steps": 2, "train.save_total_limit": 1}
    changes = words_alone | saved
    run = train_run(tmp_path, changes)
    folder, last = run.folder, run.folder / f"checkpoint-{len(run.steps)}"
    assert whole_checkpoints(folder) == [last] == list(folder.glob("checkpoint-*"))

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("smolvlm.train.checkpoint.mark_whole", stop)
    last.rename(folder / "checkpoint-1")
    (folder / "checkpoint-2").mkdir()
    (folder / "checkpoint-2" / MARKER).write_text("{}")
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path, changes | {"train.resume_from_checkpoint": False})
    assert (folder / "checkpoint-2" / "optimizer.pt").exists(), (
        "it was stopped after the files were written"
    )
    assert [path.name for path in whole_checkpoints(folder)] == ["checkpoint-1"], (
        "the stale marker is gone"
    )


def test_evaluation_is_asked_for_where_the_plans_epochs_end_and_logged(
    train_run: TrainRun, words_alone: dict[str, Any], tmp_path: Path
) -> None:
    asked: list[bool] = []

    def evaluate(model: Any) -> dict[str, float]:
        asked.append(model.training)
        return {"exact_match": len(asked) / 10}

    changes = words_alone | {
        "data.eval_mixture": words_alone["data.mixture"],
        "train.eval_strategy": "epoch",
    }
    run = train_run(
        tmp_path, changes | {"train.num_train_epochs": 2.5}, make_evaluate=lambda *_: evaluate
    )
    first, second, end = run.trained.planned.plan.epoch_ends
    assert (second, end) == (2 * first, 2 * first + round(0.5 * first))
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    evaluations = [line for line in lines if "loss" not in line]
    assert [(line["step"], line["epoch"], line["eval_exact_match"]) for line in evaluations] == [
        (first, 1.0, 0.1),
        (second, 2.0, 0.2),
        (end, 2 + (end - second) / first, 0.3),
    ]
    assert [line["step"] for line in lines] == sorted([*range(1, end + 1), first, second, end])


def test_the_trainer_leaves_the_order_of_packs_to_the_plan(plain_run: Any) -> None:
    trainer = plain_run.trained.trainer
    assert isinstance(trainer, SmolVLMTrainer)
    assert list(trainer._get_train_sampler()) == list(
        range(len(plain_run.trained.planned.plan.packs))
    )
