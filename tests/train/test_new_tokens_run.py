"""Whole runs with new tokens: what trains, what is saved, what is read back; stopping changes
nothing."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.build.upgrade_tags import upgrade_tags
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.peft_layers import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from smolvlm.cli.evaluate import run_evaluation
from smolvlm.cli.inspect import run_inspection
from smolvlm.errors import ConfigError
from smolvlm.model.towers import is_adapter, is_token_rows
from tests.first_release import VOCABULARY, first_release

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

TOKENS = ["<sum>", {"token": "</sum>", "description": "end of the result"}]
IDS = [49191, 49192]
MATRICES = ("model.text_model.embed_tokens", "lm_head")
CHECKPOINT = 3
LORA = {"adapters.language": {"type": "lora", "r": 2}, "train.new_tokens_lr": 5e-2}
FROZEN = {"adapters.language": "frozen", "train.language_model_lr": 0}
ROWS_ALONE = FROZEN | {"adapters.connector": "full", "train.new_tokens_lr": 5e-2}


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """Two runs that never stopped, and their first checkpoints in folders of their own."""

    whole: dict[str, Any]
    changes: dict[str, dict[str, Any]]
    root: Path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions whose answers hold new tokens."""
    path = tmp_path_factory.mktemp("rows") / "sums.jsonl"
    said = [(f"What is {n} <sum> 1?", f"<sum>{n + 1}</sum>") for n in range(24)]
    path.write_text(
        "".join(json.dumps({"question": own, "answer": answer}) + "\n" for own, answer in said)
    )
    return path


@pytest.fixture(scope="module")
def runs(train_run: Any, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("new_tokens")
    shared = {
        "model.new_tokens": TOKENS,
        "data.mixture": [{"json_path": str(rows)}],
        "data.eval_mixture": [{"json_path": str(rows), "name": "sums"}],
        "eval.max_rows": 3,
        "eval.max_new_tokens": 4,
        "train.save_strategy": "steps",
        "train.save_steps": 3,
    }
    changes = {"lora": shared | LORA, "rows": shared | ROWS_ALONE}
    whole = {name: train_run(root / name, own) for name, own in changes.items()}
    for name in changes:
        kept = f"checkpoint-{CHECKPOINT}"
        shutil.copytree(root / name / "out" / kept, root / f"{name}-resumed" / "out" / kept)
    return Runs(whole=whole, changes=changes, root=root)


def stock(folder: Path) -> Any:
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("name", ["lora", "rows"])
def test_of_embeddings_and_head_only_the_new_rows_train(
    runs: Runs, tiny_folder: Path, name: str
) -> None:
    run = runs.whole[name]
    assert run.losses[-1] < run.losses[0]
    model = run.trained.checkpoint.model
    begun = load_checkpoint(str(tiny_folder), new_tokens=run_tokens(run)).model.state_dict()
    own = model.state_dict()
    for matrix in MATRICES:
        assert torch.equal(
            own[f"{matrix}.token_adapter.base_layer.weight"], begun[f"{matrix}.weight"]
        )
        rows_now = own[f"{matrix}.token_adapter.trainable_tokens_delta.default"]
        assert ((rows_now - begun[f"{matrix}.weight"][IDS]).abs().amax(dim=1) > 1e-3).all()
    names = {
        key.replace(".base_layer", "").replace(".token_adapter", ""): key
        for key in own
        if not is_adapter(key)
    }
    moved = [key for key, value in begun.items() if not torch.equal(own[names[key]], value)]
    assert moved == [], "rows of text teach the connector nothing"


def run_tokens(run: Any) -> Any:
    from smolvlm.config.load import load_run_config

    return load_run_config(run.folder / "run.yaml").model.new_tokens


def test_rows_have_a_rate_of_their_own_in_the_live_optimizer_and_the_log(runs: Runs) -> None:
    trainer = runs.whole["lora"].trained.trainer
    name_of = {id(value): name for name, value in trainer.model.named_parameters()}
    groups = trainer.optimizer.optimizer.param_groups
    held = {
        name_of[id(value)]: group["initial_lr"] for group in groups for value in group["params"]
    }
    assert {rate for name, rate in held.items() if is_token_rows(name)} == {5e-2}
    assert sum(map(is_token_rows, held)) == 2
    assert {rate for name, rate in held.items() if ".lora_" in name} == {1e-3}
    assert runs.whole["lora"].steps[0]["learning_rate_token_rows"] == pytest.approx(5e-2)
    assert runs.whole["lora"].steps[0]["learning_rate_language_model"] == pytest.approx(1e-3)
    assert "learning_rate_token_rows" not in [
        *runs.whole["lora"].trained.checkpoint.model.state_dict()
    ]


@pytest.mark.parametrize("name", ["lora", "rows"])
def test_peft_and_stock_processor_load_what_is_left_behind(
    runs: Runs, tiny_folder: Path, name: str
) -> None:
    run = runs.whole[name]
    processor: Any = AutoProcessor.from_pretrained(run.folder)
    ids = processor.tokenizer("What <sum>3</sum>", add_special_tokens=False)["input_ids"]
    assert [own for own in ids if own in IDS] == IDS
    theirs = PeftModel.from_pretrained(stock(tiny_folder), str(run.folder)).eval()
    inputs = torch.tensor([ids])
    with torch.no_grad():
        ours, other = (
            run.trained.checkpoint.model.eval()(input_ids=inputs).logits,
            theirs(input_ids=inputs).logits,
        )
    assert torch.equal(ours, other)
    last = run.folder / f"checkpoint-{len(run.steps)}"
    assert (last / "tokenizer.json").read_bytes() == (run.folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("name", ["lora", "rows"])
def test_gone_on_with_is_equal_to_the_last_bit(
    runs: Runs, train_run: Any, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    resumed = train_run(runs.root / f"{name}-resumed", runs.changes[name])
    told = capsys.readouterr().err
    assert f"checkpoint-{CHECKPOINT}\n" in told
    assert "new tokens      <sum> 49191, </sum> 49192\n" in told
    assert "token rows      2 of lm_head\n" in told
    assert "token rows      learn at 0.05\n" in told
    ours, theirs = (load_file(own.folder / ADAPTER_WEIGHTS) for own in (resumed, runs.whole[name]))
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


def test_other_new_tokens_are_another_run(runs: Runs, train_run: Any) -> None:
    folder = runs.whole["lora"].folder.parent
    with pytest.raises(ConfigError, match=r"belongs to another run(.|\n)*model.new_tokens"):
        train_run(folder, runs.changes["lora"] | {"model.new_tokens": [*TOKENS, "<more>"]})


def test_evaluation_of_the_folder_reads_the_same_tokens(runs: Runs, tmp_path: Path) -> None:
    run_evaluation(
        str(runs.whole["lora"].folder),
        [],
        mixture=None,
        predictions=tmp_path / "said.jsonl",
        as_json=False,
    )
    assert len((tmp_path / "said.jsonl").read_text().splitlines()) == 3


def test_inspect_shows_single_ids_and_the_law_holds(
    runs: Runs, capsys: pytest.CaptureFixture[str]
) -> None:
    run_file = runs.whole["lora"].folder.parent / "run.yaml"
    run_inspection(run_file, [], rows="0:2", html=None, pixels=None, verify=True, as_json=True)
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["input_ids"].count(IDS[0]) == 2
    assert [own[1] for own in first["targets"] if own[1] in IDS] == IDS


def test_a_language_model_that_trains_in_full_grows_where_it_must(
    train_run: Any, rows: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    old = first_release(tiny_folder, tmp_path / "old")
    changes = {
        "model.path": str(old),
        "model.new_tokens": TOKENS,
        "data.mixture": [{"json_path": str(rows)}],
    }
    run = train_run(tmp_path, changes | {"train.num_train_epochs": 0.1})
    model = stock(run.folder)
    assert (
        model.get_input_embeddings().weight.shape[0]
        == model.get_output_embeddings().weight.shape[0]
        == 49157
    )
    processor: Any = AutoProcessor.from_pretrained(run.folder)
    assert processor.tokenizer("<sum></sum>", add_special_tokens=False)["input_ids"] == [
        VOCABULARY,
        VOCABULARY + 1,
    ]
    assert not (run.folder / ADAPTER_CONFIG).exists()
    with pytest.raises(
        ConfigError, match=r"they need 49,157 rows, .* has 49,155(.|\n)*smolvlm build --base"
    ):
        train_run(tmp_path / "adapter", changes | LORA)


def test_the_tags_of_an_upgraded_release_train_by_themselves(
    train_run: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    upgrade_tags(str(first_release(tiny_folder, tmp_path / "old")), tmp_path / "new")
    changes = {
        "model.path": str(tmp_path / "new"),
        **FROZEN,
        "train.connector_lr": 0,
        "train.trainable_tokens": ["<global-img>", "<row_*>"],
        "train.new_tokens_lr": 1e-2,
        "train.num_train_epochs": 0.1,
    }
    run = train_run(tmp_path, changes)
    rows_now = load_file(run.folder / ADAPTER_WEIGHTS)
    assert {tuple(value.shape) for value in rows_now.values()} == {(37, 32)}
    begun = load_file(tmp_path / "new" / "model.safetensors")[
        "model.text_model.embed_tokens.weight"
    ][VOCABULARY:]
    moved = (
        rows_now[
            "base_model.model.model.text_model.embed_tokens.token_adapter.trainable_tokens_delta"
        ]
        != begun
    )
    assert moved[:3].any(dim=1).all(), "<global-img> and the first tiles stand in the prompts"
    with pytest.raises(ConfigError, match=r"no added token of the checkpoint is `<rows_\*>`"):
        train_run(tmp_path / "other", changes | {"train.trainable_tokens": ["<rows_*>"]})
