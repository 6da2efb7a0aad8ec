"""Whole runs over a quantised base: what learns, what stays, what is left behind; stopping changes
nothing."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.peft_layers import ADAPTER_WEIGHTS
from smolvlm.checkpoints.quantized_layers import is_quantized
from smolvlm.cli.evaluate import run_evaluation
from smolvlm.config.quantization import quantization_of
from smolvlm.errors import ConfigError
from smolvlm.export.merge import export_for_transformers
from smolvlm.model.towers import is_adapter, tower_of
from tests.train.runs_apart import runs_apart

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

CHILD_TIMEOUT_S = 400
KILLED_IN_STEP, CHECKPOINT = 5, 3
SAVED = {
    "train.save_strategy": "steps",
    "train.save_steps": 3,
    "train.num_train_epochs": 1,
    "train.packs_per_step": 2,
}
EIGHT = {
    "quantization.bits": 8,
    "adapters.language": {"type": "lora", "r": 4, "dropout": 0.1, "lr": 1e-2},
    "adapters.vision": {"type": "lora", "r": 2, "lr": 2e-3},
    "train.optim": "adamw_8bit",
    "train.activation_checkpointing": True,
}
FOUR = {
    "quantization.bits": 4,
    "quantization.towers": ["language", "vision"],
    "adapters.language": {"type": "dora", "r": 4, "lr": 1e-2},
    "adapters.connector": "full",
    "data.vision_cache_dir": "kept_features",  # in one epoch no tile is shown twice
}
BF16 = {
    "quantization.bits": 4,
    "adapters.language": {"type": "lora", "lr": 1e-2},
    "train.bf16": True,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedRuns:
    """Two runs in this process, and their twins: the one of 8 bits killed and resumed, that of 4
    bits on two ranks."""

    whole: dict[str, Any]
    resumed: Path
    shared: Path


@pytest.fixture(scope="module")
def held_out(rows_folder: Path) -> dict[str, Any]:
    source = {"json_path": str(rows_folder / "photos.jsonl"), "name": "photos"}
    return {"data.eval_mixture": [source], "eval.max_rows": 5, "eval.max_new_tokens": 3}


@pytest.fixture(scope="module")
def runs(
    write_run: Any, train_run: Any, held_out: Any, tmp_path_factory: pytest.TempPathFactory
) -> QuantizedRuns:
    root = tmp_path_factory.mktemp("quantised")
    changes = {"eight": SAVED | EIGHT | held_out, "four": SAVED | FOUR}
    killed = write_run(root / "killed", changes["eight"])
    shared = write_run(root / "shared", changes["four"] | {"train.ddp_backend": "gloo"})
    with runs_apart(
        "forked_runs.py", KILLED_IN_STEP, killed, shared, logs=root, timeout_s=CHILD_TIMEOUT_S
    ):
        whole = {name: train_run(root / name, own) for name, own in changes.items()}
    return QuantizedRuns(
        whole=whole, resumed=root / "killed" / "out", shared=root / "shared" / "out"
    )


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [row["loss"] for row in rows(folder / "metrics.jsonl") if "loss" in row]


def test_the_loss_falls_and_what_is_frozen_stays_to_the_bit(
    runs: QuantizedRuns, tiny_folder: Path
) -> None:
    for name, towers in (("eight", ["language"]), ("four", ["language", "vision"])):
        run = runs.whole[name]
        assert run.losses[-1] < run.losses[0]
        own = quantization_of({"bits": 8 if name == "eight" else 4, "towers": towers})
        before = load_checkpoint(str(tiny_folder), quantization=own).model.state_dict()
        after = run.trained.checkpoint.model.state_dict()
        names = {key: key.replace(".base_layer", "") for key in after if not is_adapter(key)}
        assert set(names.values()) == before.keys()
        moved = [
            key for key, of_base in names.items() if not torch.equal(after[key], before[of_base])
        ]
        assert moved == ["model.connector.modality_projection.proj.weight"]


def test_under_autocast_it_learns_as_much(
    train_run: Any, words_alone: dict[str, Any], tmp_path: Path
) -> None:
    run = train_run(tmp_path, words_alone | BF16 | {"train.num_train_epochs": 1})
    plain = train_run(
        tmp_path / "plain", words_alone | BF16 | {"train.num_train_epochs": 1, "train.bf16": False}
    )
    assert run.losses[-1] < run.losses[0]
    assert run.losses == pytest.approx(plain.losses, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "towers"),
    [("eight", {"language_model"}), ("four", {"language_model", "vision_tower"})],
)
def test_layers_and_optimizer_are_those_asked_for(
    runs: QuantizedRuns, name: str, towers: set[str]
) -> None:
    trainer = runs.whole[name].trained.trainer
    held = {own for own, layer in trainer.model.named_modules() if is_quantized(layer)}
    assert {tower_of(f"{own}.weight") for own in held} == towers
    trained = {own for own, value in trainer.model.named_parameters() if value.requires_grad}
    assert {own for own in trained if not is_adapter(own)} == {
        "model.connector.modality_projection.proj.weight"
    }
    kind = type(trainer.optimizer.optimizer).__module__
    assert kind.startswith("bitsandbytes." if name == "eight" else "torch.")


def test_what_is_printed_counts_the_layers(runs: QuantizedRuns) -> None:
    messages = (runs.shared.parent / "rank-0.log").read_text()
    told = (
        "vision_tower    12 layers in 4 bits (nf4, its scales quantised too)\nlanguage_model  14 "
        "layers in 4 bits"
    )
    assert told in messages
    assert "MB instead of" in messages
    before = (runs.resumed.parent / "killed.log").read_text()
    assert "language_model  14 layers in 8 bits\n" in before


def test_the_table_counts_a_quantised_towers_parameters_in_full(
    runs: QuantizedRuns, tiny_folder: Path
) -> None:
    full = load_checkpoint(str(tiny_folder)).model
    language = sum(
        value.numel()
        for name, value in full.named_parameters()
        if tower_of(name) == "language_model"
    )
    table = runs.whole["four"].trained.trainer.check_optimizer()
    assert f"{language:>16,}" in table.splitlines()[-1]


def test_killed_and_resumed_is_equal_to_the_last_bit(runs: QuantizedRuns) -> None:
    whole, resumed = runs.whole["eight"], runs.resumed
    messages = (resumed.parent / "again.log").read_text()
    assert f"resuming from {resumed / f'checkpoint-{CHECKPOINT}'}\n" in messages
    assert losses(resumed) == whole.losses
    ours, theirs = (load_file(folder / ADAPTER_WEIGHTS) for folder in (resumed, whole.folder))
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


def test_two_ranks_learn_what_one_learns(runs: QuantizedRuns) -> None:
    assert losses(runs.shared) == pytest.approx(runs.whole["four"].losses, rel=1e-5)


def test_evaluating_the_output_folder_quantises_as_the_run_did(
    runs: QuantizedRuns, tmp_path: Path
) -> None:
    def evaluated(*overrides: str) -> dict[str, float]:
        folder = str(runs.resumed)
        return run_evaluation(
            folder, overrides, mixture=None, predictions=None, as_json=False
        ).as_log()

    logged = rows(runs.resumed / "metrics.jsonl")[-1]
    again, full = evaluated(), evaluated("quantization.bits=null")
    assert again["loss"] == pytest.approx(logged["eval_loss"], rel=1e-5)
    assert abs(full["loss"] - again["loss"]) > 1e-5
    merged = tmp_path / "merged"
    export_for_transformers(runs.resumed, merged, merge=True)
    own = ["quantization.bits=null", f"model.path={merged}"]
    run_file = str(runs.resumed.parent / "run.yaml")
    of_merged = run_evaluation(
        run_file, own, mixture=None, predictions=None, as_json=False
    ).as_log()
    assert of_merged["loss"] == pytest.approx(full["loss"], rel=1e-5)


def test_merged_is_the_full_base_with_the_adapter(runs: QuantizedRuns, tmp_path: Path) -> None:
    folder = runs.whole["four"].folder
    export_for_transformers(folder, tmp_path / "merged", merge=True)
    merged: Any = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "merged", dtype=torch.float32
    ).eval()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        unmerged = load_checkpoint(str(folder)).model.eval()(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, unmerged, rtol=0, atol=1e-5)
        quantised = runs.whole["four"].trained.checkpoint.model.eval()(input_ids=ids).logits
    assert (unmerged - quantised).abs().max() > 1e-3


def test_a_quantised_frozen_towers_features_are_cached(runs: QuantizedRuns) -> None:
    cache = runs.whole["four"].trained.vision_cache
    assert cache.layout.stage == "tower"
    assert cache.count() > 0
    assert runs.whole["eight"].trained.vision_cache is None


@pytest.mark.parametrize(
    ("name", "bits", "towers"), [("eight", 8, ["language"]), ("four", 4, ["language", "vision"])]
)
def test_the_first_loss_is_that_of_the_weights_held_and_not_of_the_full_ones(
    runs: QuantizedRuns,
    train_run: Any,
    tiny_folder: Path,
    tmp_path: Path,
    name: str,
    bits: Any,
    towers: Any,
) -> None:
    """A run over a plain model of just the weights that the few bits stand for begins at the same
    loss."""
    held = load_checkpoint(
        str(tiny_folder), quantization=quantization_of({"bits": bits, "towers": towers})
    ).model
    folder = shutil.copytree(tiny_folder, tmp_path / "twin")
    twin = load_checkpoint(str(folder)).model
    for own, layer in held.named_modules():
        if is_quantized(layer):
            twin.get_submodule(own).weight.data.copy_(layer.full_weight(torch.float32))
    twin.save_pretrained(folder)
    one = SAVED | {
        "train.num_train_epochs": 0.2,
        "adapters.language": "lora",
        "train.save_strategy": "no",
    }
    full, plain = (
        train_run(tmp_path / path.name, one | {"model.path": str(path)}).losses[0]
        for path in (tiny_folder, folder)
    )
    first = runs.whole[name].losses[0]
    assert first == pytest.approx(plain, rel=1e-6)
    assert abs(first - full) > 10 * abs(first - plain)


def test_preferences_begin_at_their_own_quantised_reference(
    train_run: Any, photos: dict[str, Path], tmp_path: Path
) -> None:
    pairs = [
        {
            "prompt": "What is shown?",
            "chosen": name,
            "rejected": f"This is a picture of {name}.",
            "image": str(path),
        }
        for name, path in photos.items()
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    changes = {
        "data.mixture": [{"json_path": str(tmp_path / "pairs.jsonl")}],
        "data.max_tokens_per_pack": 256,
    }
    method = {
        "train.method": "dpo",
        "train.beta": 0.5,
        "train.num_train_epochs": 4,
        "train.connector_lr": 0,
    }
    own = {"quantization.bits": 4, "adapters.language": {"type": "lora", "lr": 2e-2}}
    run = train_run(tmp_path / "run", changes | method | own)
    assert run.losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert run.losses[-1] < 0.6


@pytest.mark.filterwarnings(
    "ignore:Paged optimizers are not supported on CPU:UserWarning"
)  # it says so, and goes on
@pytest.mark.parametrize("optim", ["adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "lion_8bit"])
def test_8_bit_optimizers_take_our_groups_on_a_cpu(
    train_run: Any, words_alone: dict[str, Any], tmp_path: Path, optim: str
) -> None:
    """Also with whole towers and no quantised base; matrices of 4,096 numbers or more are really
    held in 8 bits."""
    own = {"train.optim": optim, "train.num_train_epochs": 1, "train.language_model_lr": 1e-3}
    run = train_run(tmp_path, words_alone | own)
    optimizer = run.trained.trainer.optimizer.optimizer
    assert type(optimizer).__module__.startswith("bitsandbytes.optim")
    assert {group["name"]: group["initial_lr"] for group in optimizer.param_groups} == {
        "connector": 5e-4,
        "language_model": 1e-3,
    }
    dtypes = {own["state1"].dtype for own in optimizer.state.values()}
    assert dtypes == {torch.uint8, torch.float32}
    assert run.losses[-1] < run.losses[0]


def test_a_missing_optimizer_package_says_what_to_install(
    train_run: Any, words_alone: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.trainer_optimizer.is_bitsandbytes_available", lambda: False)
    with pytest.raises(ConfigError) as caught:
        train_run(tmp_path, words_alone | {"train.optim": "adamw_8bit"})
    assert "train.optim=adamw_8bit: You need to install `bitsandbytes`" in str(caught.value)
    assert 'pip install "smolvlm[quantization]"' in str(caught.value)
