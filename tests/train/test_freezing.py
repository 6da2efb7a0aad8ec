"""Runs with parts of towers frozen: what stays, what moves, what is printed and what is refused
before the weights."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from smolvlm.checkpoints import base
from smolvlm.errors import ConfigError

FREEZE = {
    "train.vision_tower_lr": 1e-3,
    "freeze.embeddings": True,
    "freeze.language_layers": [0, 1],
    "freeze.vision_embeddings": True,
    "freeze.vision_layers": [0, 1],
    "train.num_train_epochs": 1,
}
KEPT = (
    "model.text_model.embed_tokens.",
    "model.text_model.layers.0.",
    "model.vision_model.embeddings.",
    "model.vision_model.encoder.layers.0.",
)


@pytest.fixture(scope="module")
def frozen_parts_run(train_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return train_run(tmp_path_factory.mktemp("parts"), FREEZE)


def test_frozen_parts_stay_to_the_bit_and_all_else_moves(
    frozen_parts_run: Any, tiny_folder: Path
) -> None:
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tiny_folder, frozen_parts_run.folder)
    )
    still = {name for name in before if torch.equal(before[name], after[name])}
    assert still == {name for name in before if name.startswith(KEPT)}


def test_the_table_says_what_is_frozen(frozen_parts_run: Any) -> None:
    _, vision, connector, language = frozen_parts_run.trained.trainer.check_optimizer().splitlines()
    assert vision.endswith("  embeddings, layers 0 to 0 of 2")
    assert connector.endswith(" 0")
    assert language.endswith("  embeddings, layers 0 to 0 of 2")


@pytest.fixture(scope="module")
def text_changes(words_alone: dict[str, Any]) -> dict[str, Any]:
    """Text alone behind frozen embeddings: no layer's input needs a gradient."""
    return words_alone | {"freeze.embeddings": True, "train.num_train_epochs": 1}


@pytest.fixture(scope="module")
def text_run(
    train_run: Any, text_changes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    return train_run(tmp_path_factory.mktemp("text"), text_changes)


@pytest.mark.parametrize(
    "kind", [{}, {"use_reentrant": True}, {"preserve_rng_state": False}], ids=str
)
def test_activation_checkpointing_learns_the_same(
    train_run: Any,
    text_run: Any,
    text_changes: dict[str, Any],
    tmp_path: Path,
    kind: dict[str, bool],
) -> None:
    changes = {
        "train.activation_checkpointing": True,
        "train.activation_checkpointing_kwargs": kind,
    }
    again = train_run(tmp_path, text_changes | changes)
    assert [(row["loss"], row["grad_norm"]) for row in again.steps] == [
        (row["loss"], row["grad_norm"]) for row in text_run.steps
    ]
    assert all(row["grad_norm"] > 0 for row in text_run.steps)


def test_the_connector_alone_trains_through_steps_without_pictures(
    train_run: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    alone = {"train.language_model_lr": 0.0, "train.packs_per_step": 1, "train.num_train_epochs": 1}
    run = train_run(tmp_path, alone)
    assert {row["num_tiles"] > 0 for row in run.steps} == {True, False}
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tiny_folder, run.folder)
    )
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"model.connector.modality_projection.proj.weight"}


def test_rows_without_pictures_teach_a_connector_nothing(
    train_run: Any, words_alone: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError,
        match="no row has a picture or a clip, and nothing of the language model trains",
    ):
        train_run(tmp_path, words_alone | {"train.language_model_lr": 0.0})


def test_layers_that_are_not_there_are_refused_before_rows_and_weights(
    train_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "load_weights", lambda *_, **__: pytest.fail("the weights are read"))
    changes = {"freeze.language_layers": [0, 3], "data.mixture": [{"json_path": "nowhere.jsonl"}]}
    with pytest.raises(
        ConfigError, match=r"\[0, 3\] goes beyond the 2 layers of the language model"
    ):
        train_run(tmp_path, changes)
