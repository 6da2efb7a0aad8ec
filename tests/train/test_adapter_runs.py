"""Whole runs with adapters: what trains, at which rate, what is left behind; stopping or sharing
changes nothing."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.peft_layers import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from smolvlm.cli.evaluate import run_evaluation
from smolvlm.errors import ConfigError
from smolvlm.model.towers import is_adapter, tower_of
from smolvlm.train.checkpoint_folder import whole_checkpoints
from smolvlm.train.log import MEASURED_KEYS
from tests.train.runs_apart import runs_apart

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

CHILD_TIMEOUT_S = 300
KILLED_IN_STEP, CHECKPOINT = 5, 3
SAVED = {
    "train.save_strategy": "steps",
    "train.save_steps": 3,
    "train.num_train_epochs": 1,
    "train.packs_per_step": 2,
}
ALL_TOWERS = {
    "adapters.language": {"type": "lora", "r": 4, "alpha": 8, "dropout": 0.1, "lr": 1e-2},
    "adapters.vision": {"type": "lora", "r": 2, "lr": 2e-3},
    "adapters.connector": "full",
}
PISSA = {
    "adapters.language": {"type": "pissa", "r": 2, "dropout": 0.1},
    "adapters.connector": "frozen",
    "train.connector_lr": 0,
    "data.vision_cache_dir": "kept_features",  # in one epoch no tile is shown twice
}


@dataclass(frozen=True, kw_only=True, slots=True)
class AdapterRuns:
    """The same runs never stopped (in this process), killed and resumed, and on two ranks."""

    whole: dict[str, Any]
    resumed: dict[str, Path]
    alone: Any
    shared: Path


@pytest.fixture(scope="module")
def runs(
    write_run: Any, train_run: Any, rows_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> AdapterRuns:
    root = tmp_path_factory.mktemp("adapters")
    changes = {"lora": SAVED | ALL_TOWERS, "pissa": SAVED | PISSA}
    no_dropout = {
        "adapters.language": {"type": "dora", "r": 4},
        "adapters.vision": {"type": "dora", "lr": 2e-3},
    }
    held_out = {
        "data.eval_mixture": [{"json_path": str(rows_folder / "photos.jsonl"), "name": "photos"}]
    }
    shared = SAVED | no_dropout | held_out | {"eval.max_rows": 5, "eval.max_new_tokens": 3}
    files = {name: write_run(root / name, own) for name, own in changes.items()}
    shared_file = write_run(root / "shared", shared | {"train.ddp_backend": "gloo"})
    with runs_apart(
        "forked_runs.py",
        KILLED_IN_STEP,
        *files.values(),
        shared_file,
        logs=root,
        timeout_s=CHILD_TIMEOUT_S,
    ):
        whole = {name: train_run(root / f"{name}-whole", own) for name, own in changes.items()}
        alone = train_run(root / "alone", shared)
    return AdapterRuns(
        whole=whole,
        resumed={name: file.parent / "out" for name, file in files.items()},
        alone=alone,
        shared=root / "shared" / "out",
    )


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def stock(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


def test_only_adapters_and_whole_towers_are_in_the_live_optimizer_at_their_rates(
    runs: AdapterRuns,
) -> None:
    trainer = runs.whole["lora"].trained.trainer
    name_of = {id(value): name for name, value in trainer.model.named_parameters()}
    groups = trainer.optimizer.optimizer.param_groups
    held = {
        name_of[id(value)]: group["initial_lr"] for group in groups for value in group["params"]
    }
    assert held == {
        name: {"vision_tower": 2e-3, "connector": 5e-4, "language_model": 1e-2}[tower_of(name)]
        for name in held
    }
    assert {name for name in held if not is_adapter(name)} == {
        "model.connector.modality_projection.proj.weight"
    }
    assert set(held) == {
        name for name in name_of.values() if is_adapter(name) or tower_of(name) == "connector"
    }
    assert len(held) == 2 * (12 + 14) + 1


def test_the_loss_falls_and_adapted_weights_stay_to_the_bit(
    runs: AdapterRuns, tiny_folder: Path
) -> None:
    for run in runs.whole.values():
        assert run.losses[-1] < run.losses[0]
    own = runs.whole["lora"].trained.checkpoint.model.state_dict()
    before = load_file(tiny_folder / "model.safetensors")
    names = {name.replace(".base_layer", ""): name for name in own if not is_adapter(name)}
    assert names.keys() == before.keys()
    moved = [name for name, value in before.items() if not torch.equal(own[names[name]], value)]
    assert moved == ["model.connector.modality_projection.proj.weight"]


def test_what_is_printed_counts_the_layers(runs: AdapterRuns) -> None:
    messages = (runs.resumed["lora"].parent / "again.log").read_text()
    assert (
        "language_model  lora of rank 4 in 14 layers\nvision_tower    lora of rank 2 in 12 layers\n"
        in messages
    )
    assert "vision_tower             0.002" in messages


def test_the_output_is_an_adapter_folder_with_its_processor(
    runs: AdapterRuns, tiny_folder: Path
) -> None:
    run = runs.whole["lora"]
    last = run.folder / f"checkpoint-{len(run.steps)}"
    for folder in (run.folder, last):
        files = {path.name for path in folder.iterdir()}
        assert files >= {
            ADAPTER_CONFIG,
            ADAPTER_WEIGHTS,
            "processor_config.json",
            "tokenizer.json",
            "training_args.bin",
        }
        assert not files & {"model.safetensors", "config.json"}
    assert {path.name for path in last.iterdir()} >= {
        "optimizer.pt",
        "trainer_state.json",
        "smolvlm.json",
    }
    assert json.loads((run.folder / ADAPTER_CONFIG).read_text())["base_model_name_or_path"] == str(
        tiny_folder
    )
    assert AutoProcessor.from_pretrained(run.folder).image_processor.size["longest_edge"] == 64


@pytest.mark.parametrize("name", ["lora", "pissa"])
def test_peft_loads_the_output_onto_the_stock_base(
    runs: AdapterRuns, tiny_folder: Path, name: str
) -> None:
    trained = runs.whole[name].trained.checkpoint.model.eval()
    theirs = PeftModel.from_pretrained(stock(tiny_folder), str(runs.whole[name].folder)).eval()
    ids = torch.arange(40)[None]
    with torch.no_grad():
        ours, other = trained(input_ids=ids).logits, theirs(input_ids=ids).logits
    torch.testing.assert_close(other, ours, rtol=0, atol=1e-5)
    assert (ours - stock(tiny_folder)(input_ids=ids).logits).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["lora", "pissa"])
def test_killed_and_resumed_is_equal_to_the_last_bit(runs: AdapterRuns, name: str) -> None:
    whole, resumed = runs.whole[name], runs.resumed[name]
    messages = (resumed.parent / "again.log").read_text()
    assert f"resuming from {resumed / f'checkpoint-{CHECKPOINT}'}\n" in messages
    lines = [row for row in rows(resumed / "metrics.jsonl") if "loss" in row]
    for ours, theirs in zip(lines, whole.steps, strict=True):
        assert {key: ours[key] for key in ours.keys() - MEASURED_KEYS} == {
            key: theirs[key] for key in theirs.keys() - MEASURED_KEYS
        }
    ours, theirs = (load_file(folder / ADAPTER_WEIGHTS) for folder in (resumed, whole.folder))
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


def test_two_ranks_learn_what_one_learns(runs: AdapterRuns) -> None:
    ours, theirs = (
        [row for row in rows(own / "metrics.jsonl") if "loss" in row]
        for own in (runs.shared, runs.alone.folder)
    )
    assert len(ours) == len(theirs) == runs.alone.trained.planned.plan.num_steps
    for own, other in zip(ours, theirs, strict=True):
        assert own["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert own["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
    weights, others = (
        load_file(folder / ADAPTER_WEIGHTS) for folder in (runs.shared, runs.alone.folder)
    )
    # Softmax cancels part of it: rounding alone, which Adam makes as large as any.
    noise = "k_proj.lora"
    errors = {
        name: float((weights[name] - value).norm() / value.norm())
        for name, value in others.items()
        if noise not in name
    }
    assert max(errors.values()) < 1e-4


def test_evaluating_the_output_folder_is_the_runs_own_evaluation(
    runs: AdapterRuns, tmp_path: Path
) -> None:
    evaluation = run_evaluation(
        str(runs.shared), [], mixture=None, predictions=tmp_path / "again.jsonl", as_json=False
    )
    shared, again = rows(runs.shared / "predictions.jsonl"), rows(tmp_path / "again.jsonl")
    for one, other in zip(shared, again, strict=True):
        assert one == other | {"key": None, "loss": pytest.approx(other["loss"], rel=1e-5)}
    logged = rows(runs.shared / "metrics.jsonl")[-1]
    assert {name: logged[f"eval_{name}"] for name in evaluation.as_log()} == pytest.approx(
        evaluation.as_log(), rel=1e-5
    )


def test_the_vision_cache_is_on_only_where_nothing_in_the_tower_trains(runs: AdapterRuns) -> None:
    assert runs.whole["lora"].trained.vision_cache is None
    assert not (runs.whole["lora"].folder / "vision_cache").exists()
    cache = runs.whole["pissa"].trained.vision_cache
    assert cache.layout.stage == "connector"
    assert cache.count() > 0


def test_training_from_an_adapter_is_refused(
    runs: AdapterRuns, train_run: Any, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="training begins at a model, and this is an adapter"):
        train_run(tmp_path, {"model.path": str(runs.whole["lora"].folder)})


def test_the_best_adapter_is_put_back(
    train_run: Any, words_alone: dict[str, Any], tmp_path: Path
) -> None:
    asked: list[dict[str, torch.Tensor]] = []

    def evaluate(model: Any) -> dict[str, float]:
        asked.append(
            {name: value.clone() for name, value in model.state_dict().items() if is_adapter(name)}
        )
        return {"loss": float(len(asked))}  # the first is the best

    best = {
        "train.load_best_model_at_end": True,
        "train.eval_strategy": "epoch",
        "train.save_strategy": "epoch",
    }
    changes = (
        words_alone
        | {"data.eval_mixture": words_alone["data.mixture"], "adapters.language": "lora"}
        | best
    )
    run = train_run(tmp_path, changes, make_evaluate=lambda *_: evaluate)
    own = run.trained.checkpoint.model.state_dict()
    assert len(asked) == 2
    assert all(torch.equal(own[name], value) for name, value in asked[0].items())
    assert not all(torch.equal(own[name], value) for name, value in asked[1].items())
    assert len(whole_checkpoints(run.folder)) == 2


def test_a_full_run_over_an_adapters_folder_leaves_no_adapter_there(
    train_run: Any, words_alone: dict[str, Any], tmp_path: Path
) -> None:
    changes = words_alone | {"train.num_train_epochs": 0.2, "train.resume_from_checkpoint": False}
    train_run(tmp_path, changes | {"adapters.language": "lora"})
    run = train_run(tmp_path, changes)
    assert not (run.folder / ADAPTER_CONFIG).exists()
    load_checkpoint(str(run.folder))
