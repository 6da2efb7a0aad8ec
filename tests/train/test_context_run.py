"""Runs with an extended context: what is too long is refused before the weights, what is saved
carries the scaling."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText

from smolvlm.checkpoints import base
from smolvlm.cli.evaluate import run_evaluation
from smolvlm.errors import ConfigError, SampleError
from smolvlm.train.checkpoint_folder import whole_checkpoints

SCALED = {"model.rope_scaling": {"type": "yarn", "factor": 2.0}, "train.num_train_epochs": 1}


@pytest.fixture(scope="module")
def short(
    tiny_folder: Path, rows_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Changes to a run over text of which no row fits the checkpoint's 16 tokens and each fits
    32."""
    folder = tmp_path_factory.mktemp("short") / "model"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 16
    (folder / "config.json").write_text(json.dumps(config))
    return {
        "model.path": str(folder),
        "data.mixture": [{"json_path": str(rows_folder / "words.jsonl")}],
    }


@pytest.fixture(scope="module")
def scaled_run(
    train_run: Any, short: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> Any:
    saved = {"train.save_strategy": "steps", "train.save_steps": 1}
    return train_run(tmp_path_factory.mktemp("scaled"), short | SCALED | saved)


def test_rows_beyond_the_checkpoints_context_are_refused_before_the_weights(
    train_run: Any, short: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "load_weights", lambda *_, **__: pytest.fail("the weights are read"))
    with pytest.raises(
        SampleError, match=r"tokens in one conversation, the model's context is 16"
    ) as caught:
        train_run(tmp_path, short)
    assert "or extend the context with model.rope_scaling" in str(caught.value)


def test_with_the_context_extended_they_train(scaled_run: Any) -> None:
    lengths = scaled_run.trained.planned.measured.lengths.num_tokens
    assert 16 < lengths.min() <= lengths.max() <= 32
    assert lengths.max() < 128 == scaled_run.trained.planned.plan.budget.max_tokens
    assert all(row["loss"] > 0 for row in scaled_run.steps)


@pytest.mark.parametrize("place", ["final model", "checkpoint"])
def test_what_is_saved_carries_the_scaling_for_plain_transformers(
    scaled_run: Any, place: str
) -> None:
    folder = (
        scaled_run.folder if place == "final model" else whole_checkpoints(scaled_run.folder)[-1]
    )
    ours = scaled_run.trained.checkpoint.model.model.text_model.rotary_emb
    stock = AutoModelForImageTextToText.from_pretrained(folder).model.text_model.rotary_emb
    assert torch.equal(stock.inv_freq, ours.inv_freq)
    assert stock.attention_scaling == ours.attention_scaling > 1
    text = json.loads((folder / "config.json").read_text())["text_config"]
    assert (
        text["rope_theta"],
        text["rope_scaling"]["factor"],
        text["max_position_embeddings"],
    ) == (100_000.0, 2.0, 32)


def test_a_trained_model_names_its_rotary_base_for_older_readers_without_scaling_too(
    frozen_run: Any,
) -> None:
    text = json.loads((frozen_run.folder / "config.json").read_text())["text_config"]
    assert text["rope_theta"] == text["rope_parameters"]["rope_theta"] == 100_000.0
    assert "rope_scaling" not in text


def test_it_is_evaluated_with_the_scaling_once(scaled_run: Any, short: dict[str, Any]) -> None:
    mixture = f"data.eval_mixture={json.dumps(short['data.mixture'])}"
    few = ["eval.max_rows=2", "eval.max_new_tokens=2"]
    evaluation = run_evaluation(
        str(scaled_run.folder), [mixture, *few], mixture=None, predictions=None, as_json=False
    )
    assert len(evaluation.predictions) == 2


def test_another_scaling_of_a_scaled_model_is_refused_before_rows(
    train_run: Any, scaled_run: Any, short: dict[str, Any], tmp_path: Path
) -> None:
    changes = {
        "model.path": str(scaled_run.folder),
        "model.rope_scaling": {"type": "linear", "factor": 4.0},
    }
    with pytest.raises(
        ConfigError, match=r"the checkpoint's context is extended already \(yarn, factor 2\.0\)"
    ):
        train_run(tmp_path, short | changes | {"data.mixture": [{"json_path": "nowhere.jsonl"}]})
