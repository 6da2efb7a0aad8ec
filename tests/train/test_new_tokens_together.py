"""New tokens with everything at once: a base in 8 bits, LoRA, pictures, preferences; killed, and on
two ranks."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.peft_layers import ADAPTER_WEIGHTS
from smolvlm.export.merge import export_for_transformers
from tests.train.runs_apart import runs_apart

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

CHILD_TIMEOUT_S = 400
KILLED_IN_STEP, CHECKPOINT = 5, 3
TOKENS = ["<shown>", "</shown>"]
MATRICES = ("model.text_model.embed_tokens", "lm_head")


@dataclass(frozen=True, kw_only=True, slots=True)
class Runs:
    """One run in this process; its twins: one killed and begun again, one on two ranks."""

    whole: Any
    resumed: Path
    shared: Path


@pytest.fixture(scope="module")
def runs(
    write_run: Any,
    train_run: Any,
    photos: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Runs:
    root = tmp_path_factory.mktemp("together")
    pairs = [
        {
            "prompt": "What is it?",
            "chosen": f"<shown>{name}</shown>",
            "rejected": f"It is {name}.",
            "image": str(path),
        }
        for name, path in photos.items()
    ]
    (root / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    changes = {
        "model.new_tokens": TOKENS,
        "quantization.bits": 8,
        "adapters.language": {"type": "lora", "r": 4, "lr": 1e-2},
        "data.mixture": [{"json_path": str(root / "pairs.jsonl"), "repeat": 2}],
        "data.max_tokens_per_pack": 256,
        "train.method": "dpo",
        "train.beta": 0.5,
        "train.connector_lr": 0,
        "train.new_tokens_lr": 2e-2,
        "train.num_train_epochs": 3,
        "train.packs_per_step": 2,
        "train.save_strategy": "steps",
        "train.save_steps": CHECKPOINT,
    }
    killed = write_run(root / "killed", changes)
    shared = write_run(root / "shared", changes | {"train.ddp_backend": "gloo"})
    with runs_apart(
        "forked_runs.py", KILLED_IN_STEP, killed, shared, logs=root, timeout_s=CHILD_TIMEOUT_S
    ):
        whole = train_run(root / "whole", changes)
    return Runs(whole=whole, resumed=root / "killed" / "out", shared=root / "shared" / "out")


def losses(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


def test_it_begins_at_its_own_reference_and_learns_the_tokens(runs: Runs) -> None:
    assert runs.whole.losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert runs.whole.losses[-1] < 0.6
    model = runs.whole.trained.checkpoint.model
    begun = load_checkpoint(
        runs.whole.trained.checkpoint.path, new_tokens=model_tokens()
    ).model.state_dict()
    own = model.state_dict()
    for matrix in MATRICES:
        now = own[f"{matrix}.token_adapter.trainable_tokens_delta.default"]
        ids = own_ids(runs.whole.folder)
        assert ((now - begun[f"{matrix}.weight"][ids]).abs().amax(dim=1) > 1e-3).all()


def model_tokens() -> Any:
    from smolvlm.config.new_tokens import NewToken

    return tuple(NewToken(token=token) for token in TOKENS)


def own_ids(folder: Path) -> list[int]:
    processor: Any = AutoProcessor.from_pretrained(folder)
    ids = processor.tokenizer("".join(TOKENS), add_special_tokens=False)["input_ids"]
    assert len(ids) == len(TOKENS), "single ids after reload"
    return ids


def test_killed_and_resumed_is_equal_to_the_last_bit(runs: Runs) -> None:
    messages = (runs.resumed.parent / "again.log").read_text()
    assert f"resuming from {runs.resumed / f'checkpoint-{CHECKPOINT}'}\n" in messages
    assert losses(runs.resumed) == runs.whole.losses
    ours, theirs = (
        load_file(folder / ADAPTER_WEIGHTS) for folder in (runs.resumed, runs.whole.folder)
    )
    assert ours.keys() == theirs.keys()
    assert [key for key in theirs if not torch.equal(ours[key], theirs[key])] == []


def test_two_ranks_learn_what_one_learns(runs: Runs) -> None:
    assert losses(runs.shared) == pytest.approx(runs.whole.losses, rel=1e-5)


def test_merged_is_the_full_base_with_adapter_and_rows(runs: Runs, tmp_path: Path) -> None:
    export_for_transformers(runs.whole.folder, tmp_path / "merged", merge=True)
    merged: Any = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "merged", dtype=torch.float32
    ).eval()
    ids = torch.tensor([[*range(20), *own_ids(tmp_path / "merged")]])
    with torch.no_grad():
        unmerged = load_checkpoint(str(runs.whole.folder)).model.eval()(input_ids=ids).logits
        torch.testing.assert_close(merged(input_ids=ids).logits, unmerged, rtol=0, atol=1e-5)
