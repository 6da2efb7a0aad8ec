"""The reference asked in the step says what the one computed before says, now, later and in a run
that goes on."""

import copy
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.peft_layers import adapter_tensors, adapters_off
from smolvlm.config.adapters import AdapterConfig
from smolvlm.errors import ConfigError
from smolvlm.model.modeling_smolvlm import PackedTraining
from smolvlm.model.towers import Tower
from smolvlm.train.methods import reference
from smolvlm.train.methods.online_reference import frozen_copy
from smolvlm.train.methods.reference import FILE_NAME
from tests.train.conftest import FinishedRun, TrainRun

TOLERANCE = 1e-6
LORA: dict[Tower, AdapterConfig] = {"language_model": AdapterConfig(r=4)}
ADAPTED = {
    "train.method": "dpo",
    "train.beta": 0.5,
    "train.connector_lr": 0,
    "train.language_model_lr": 1e-2,
    "train.packs_per_step": 1,
    "train.num_train_epochs": 2,
    "adapters.language": {"type": "lora", "r": 4, "dropout": 0.2},
    "data.max_tokens_per_pack": 200,
}
REFERENCES = ("precomputed", "adapter_off", "copy")


@pytest.fixture(scope="module")
def pairs(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The setting that names them: about pictures, two of them at once, and nothing at all."""
    coffee, rocket = str(photos["coffee"]), str(photos["rocket"])
    rows = [
        {
            "prompt": "What is shown?",
            "chosen": name,
            "rejected": f"It is {name}.",
            "image": str(path),
        }
        for name, path in photos.items()
    ]
    rows += [
        {
            "prompt": "Which two?",
            "chosen": "coffee, rocket",
            "rejected": "Some.",
            "images": [coffee, rocket],
        }
    ]
    rows += [
        {"prompt": f"{n} and 2?", "chosen": f"{n + 2}", "rejected": f"It is {n + 2}."}
        for n in range(5)
    ]
    path = tmp_path_factory.mktemp("pairs") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"data.mixture": [{"json_path": str(path)}]}


@pytest.fixture(scope="module")
def runs(
    train_run: TrainRun, pairs: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, FinishedRun]:
    """The same run with each of them, its tower frozen and its features kept; saved twice on the
    way."""
    root = tmp_path_factory.mktemp("references")
    saved = {"train.save_strategy": "steps", "train.save_steps": 3}
    return {
        name: train_run(root / name, ADAPTED | pairs | saved | {"train.reference": name})
        for name in REFERENCES
    }


def test_all_three_give_equal_losses_and_rewards_in_every_step(
    runs: dict[str, FinishedRun],
) -> None:
    first = runs["precomputed"]
    assert first.losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert first.losses[-1] < 0.6
    for name in ("adapter_off", "copy"):
        assert runs[name].losses == pytest.approx(first.losses, abs=TOLERANCE), name
        for key in ("rewards_margin", "rewards_chosen", "logps_rejected"):
            own, other = ([line[key] for line in run.steps] for run in (runs[name], first))
            assert own == pytest.approx(other, abs=1e-5), key


def test_only_what_is_computed_before_is_kept(runs: dict[str, FinishedRun]) -> None:
    assert [name for name, run in runs.items() if (run.folder / FILE_NAME).exists()] == [
        "precomputed"
    ]


@pytest.mark.parametrize("name", ["adapter_off", "copy"])
def test_a_run_that_goes_on_asks_the_reference_of_the_start(
    train_run: TrainRun,
    pairs: dict[str, Any],
    runs: dict[str, FinishedRun],
    name: str,
    tmp_path: Path,
) -> None:
    whole = runs[name]
    checkpoint = whole.folder / "checkpoint-3"
    again = {"train.reference": name, "train.resume_from_checkpoint": str(checkpoint)}
    saved = {"train.save_strategy": "steps", "train.save_steps": 3}
    resumed = train_run(tmp_path, ADAPTED | pairs | saved | again)
    assert resumed.losses == whole.losses[3:]


def test_pictures_are_encoded_once_for_both(
    train_run: TrainRun, pairs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without a cache too; with one, what is encoded for the reference is what it keeps, and no
    tile is encoded in two packs."""
    encoded: list[int] = []
    original = PackedTraining.tower_features

    def counted(self: Any, tiles: torch.Tensor) -> torch.Tensor:
        encoded.append(len(tiles))
        return original(self, tiles)

    monkeypatch.setattr(PackedTraining, "tower_features", counted)
    once = {"train.num_train_epochs": 1, "train.reference": "adapter_off"}
    tiles = {}
    for name, own in {
        "cached": {"train.num_train_epochs": 2},
        "not": {"data.vision_cache": False},
        "copied": {"data.vision_cache": False, "train.reference": "copy"},
    }.items():
        encoded.clear()
        run = train_run(tmp_path / name, ADAPTED | pairs | once | own)
        tiles[name] = sum(encoded)
        if name == "cached":
            assert run.trained.vision_cache is not None
            assert tiles["cached"] == run.trained.vision_cache.count()
    assert 0 < tiles["cached"] <= tiles["not"] == tiles["copied"]


def test_where_the_tower_has_an_adapter_each_encodes_for_itself(
    train_run: TrainRun, pairs: dict[str, Any], tmp_path: Path
) -> None:
    own = {
        "adapters.vision": {"type": "lora", "r": 2, "lr": 1e-2},
        "adapters.connector": {"type": "lora", "lr": 1e-2},
    }
    losses = [
        train_run(tmp_path / name, ADAPTED | pairs | own | {"train.reference": name}).losses
        for name in REFERENCES
    ]
    assert losses[1] == pytest.approx(losses[0], abs=TOLERANCE)
    assert losses[2] == pytest.approx(losses[0], abs=TOLERANCE)


def test_a_whole_model_is_copied_and_trained(
    train_run: TrainRun, pairs: dict[str, Any], tmp_path: Path
) -> None:
    whole = {
        key: value for key, value in (ADAPTED | pairs).items() if not key.startswith("adapters.")
    }
    own = {
        "train.vision_tower_lr": 1e-3,
        "train.connector_lr": 1e-3,
        "train.language_model_lr": 1e-3,
    }
    losses = [
        train_run(tmp_path / name, whole | own | {"train.reference": name}).losses
        for name in ("precomputed", "copy")
    ]
    assert losses[1] == pytest.approx(losses[0], abs=TOLERANCE)
    assert losses[0][-1] < losses[0][0]


def test_another_model_can_be_the_reference(
    train_run: TrainRun,
    pairs: dict[str, Any],
    runs: dict[str, FinishedRun],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trained adapter folder: against it, the untrained model begins by preferring the worse
    answers. Nothing of it trains, so that its tower is one that may be laid out for the CPU."""
    loaded: list[Any] = []

    monkeypatch.setattr(
        reference, "other_model", partial(_called_before, reference.other_model, loaded)
    )
    other = runs["precomputed"].folder
    run = train_run(
        tmp_path,
        ADAPTED | pairs | {"train.reference_model": str(other), "train.num_train_epochs": 1},
    )
    assert run.steps[0]["rewards_margin"] < -0.1
    assert run.losses[0] > 0.7
    (model,) = loaded
    assert not any(value.requires_grad for value in model.parameters())


def _called_before(load: Any, loaded: list[Any], *given: Any) -> Any:
    loaded.append(load(*given))
    return loaded[-1]


def test_a_reference_that_reads_other_prompts_is_refused(
    train_run: TrainRun, pairs: dict[str, Any], checkpoint_folders: dict[Any, Path], tmp_path: Path
) -> None:
    named = {
        "train.reference_model": str(checkpoint_folders["smolvlm"]),
        "data.longest_edge_px": None,
    }
    with pytest.raises(
        ConfigError,
        match=r"its tokenizer, tiles or frames are not those of the model(.|\n)*same base",
    ):
        train_run(
            tmp_path, ADAPTED | pairs | named | {"model.path": str(_of_other_tiles(tmp_path))}
        )


def test_a_reference_that_is_not_there_is_named_by_its_setting(
    train_run: TrainRun, pairs: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"train\.reference_model=.*: no config\.json here"):
        train_run(tmp_path, ADAPTED | pairs | {"train.reference_model": str(tmp_path)})


def _of_other_tiles(folder: Path) -> Path:
    from smolvlm.build.tiny import tiny_model

    return tiny_model(folder / "other", longest_edge_px=64)


def test_a_copy_shares_what_does_not_train(tiny_folder: Path) -> None:
    model = load_checkpoint(str(tiny_folder)).model
    attach_adapters(model, LORA, base="", seed=0)
    freeze(model, LearningRates(adapter={"language_model": 1.0}))
    copied = frozen_copy(model)
    own, other = dict(model.named_parameters()), dict(copied.named_parameters())
    assert own.keys() == other.keys()
    for name, value in own.items():
        assert (value is other[name]) == (not value.requires_grad), name
    assert not any(value.requires_grad for value in other.values())
    assert any(value.requires_grad for value in own.values())


def test_adapters_that_were_off_are_as_they_were(tiny_folder: Path) -> None:
    model = load_checkpoint(str(tiny_folder)).model
    pixels = torch.arange(40)[None] + 100
    with torch.no_grad():
        base = model(input_ids=pixels).logits
        attach_adapters(model, LORA, base="", seed=0)
        for name, value in adapter_tensors(model).items():
            if ".lora_B." in name:
                value.copy_(torch.randn_like(value))
        freeze(model, LearningRates(adapter={"language_model": 1.0}))
        trains = {name: value.requires_grad for name, value in model.named_parameters()}
        adapted = copy.copy(model(input_ids=pixels).logits)
        with adapters_off(model):
            assert torch.equal(model(input_ids=pixels).logits, base)
        assert torch.equal(model(input_ids=pixels).logits, adapted)
    assert not torch.allclose(adapted, base, atol=1e-3)
    assert {name: value.requires_grad for name, value in model.named_parameters()} == trains


def test_a_reference_with_too_short_a_context_is_refused(
    train_run: TrainRun, pairs: dict[str, Any], tiny_folder: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(tiny_folder, tmp_path / "other")
    content = json.loads((other / "config.json").read_text())
    content["text_config"]["max_position_embeddings"] = 16
    (other / "config.json").write_text(json.dumps(content))
    named = {"train.reference_model": str(other), "data.longest_edge_px": None}
    with pytest.raises(
        ConfigError,
        match=r"its context is 16 tokens, and a pair has \d+(.|\n)*with a longer context",
    ):
        train_run(tmp_path / "run", ADAPTED | pairs | named)


def test_a_kept_reference_is_not_that_of_a_model_scaled_otherwise(
    train_run: TrainRun, pairs: dict[str, Any], tmp_path: Path
) -> None:
    """A model that is its own reference begins at log 2, in a folder where another's was kept
    too."""
    whole = {
        key: value for key, value in (ADAPTED | pairs).items() if not key.startswith("adapters.")
    }
    whole |= {"train.num_train_epochs": 0.2, "train.resume_from_checkpoint": False}
    train_run(tmp_path, whole)
    scaled = train_run(tmp_path, whole | {"model.rope_scaling": {"type": "linear", "factor": 8.0}})
    assert scaled.losses[0] == pytest.approx(0.693147, abs=1e-5)
