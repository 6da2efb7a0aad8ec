"""`smolvlm build`: from two folders to a model that `smolvlm train` trains; cards without weights;
refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import (
    AutoModelForImageTextToText,
    LlamaConfig,
    LlamaForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from smolvlm.build.tokenizer import tokenizer_json


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of a tiny tower and a tiny language model of SmolLM2's vocabulary."""
    root = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    SiglipVisionModel(SiglipVisionConfig(**sizes, image_size=32, patch_size=8)).save_pretrained(
        root / "tower"
    )
    LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=49_280)).save_pretrained(root / "language")
    (root / "language" / "tokenizer.json").write_text(tokenizer_json())
    return {"--vision": root / "tower", "--language": root / "language"}


def flat(options: dict[str, Any]) -> list[object]:
    return [word for pair in options.items() for word in pair]


def test_what_is_built_trains(
    parts: dict[str, Path], settings: dict[str, Any], smolvlm_command: Any, tmp_path: Path
) -> None:
    outcome = smolvlm_command(
        "build", *flat(parts), "--longest-edge-px", 64, "--out", tmp_path / "built"
    )
    assert outcome.status == 0, outcome.messages
    assert (
        "SmolLM2's vocabulary: the tokenizer is the released SmolVLM's, to the byte"
        in outcome.messages
    )
    train = settings["train"] | {"output_dir": str(tmp_path / "out"), "num_train_epochs": 1}
    own = settings | {"model": {"path": str(tmp_path / "built")}, "train": train}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(own))
    trained = smolvlm_command("train", tmp_path / "run.yaml")
    assert trained.status == 0, trained.messages
    assert (
        AutoModelForImageTextToText.from_pretrained(tmp_path / "out").config.text_config.vocab_size
        == 49_280
    )


def test_a_dry_run_writes_nothing_and_measures(
    parts: dict[str, Path], smolvlm_command: Any, tmp_path: Path
) -> None:
    outcome = smolvlm_command("build", *flat(parts), "--dry-run", "--measure", 1, "--json")
    assert outcome.status == 0, outcome.messages
    (card,) = outcome.objects
    assert card["patches_per_tile"] == 16
    assert [picture["tiles"] for picture in card["pictures"]] == [1, 17]
    assert card["tile_ms"] > 0
    assert list(tmp_path.iterdir()) == []


def test_cards_of_the_published_towers_need_no_weights(smolvlm_command: Any) -> None:
    outcome = smolvlm_command("build", "--cards", "--language", "smollm2-1.7b", "--json")
    assert outcome.status == 0, outcome.messages
    assert outcome.objects[1]["parameters"] == 2_246_784_880
    assert [card["patches_per_tile"] for card in outcome.objects] == [1024, 729, 1024, 4096, 4096]
    assert "paligemma2-896" in outcome.messages


def test_mistakes_say_what_where_and_how_to_mend(
    parts: dict[str, Path], smolvlm_command: Any, tmp_path: Path
) -> None:
    cases = [
        (
            ["--dry-run", "--scale-factor", 3],
            "error: scale_factor=3 does not divide 4 patches a side\n  fix: give one",
        ),
        (
            [],
            "error: smolvlm build: --out is missing\n  fix: give either --out FOLDER or --dry-run",
        ),
        (
            ["--dry-run", "--out", tmp_path / "out"],
            "error: smolvlm build: --dry-run writes nothing",
        ),
    ]
    for arguments, message in cases:
        outcome = smolvlm_command("build", *flat(parts), *arguments)
        assert outcome.status == 1
        assert message in outcome.messages
    names = {"--vision": "siglip-base-512", "--language": "smollm2-135m"}
    outcome = smolvlm_command("build", *flat(names), "--out", tmp_path / "out")
    assert outcome.status == 1
    assert "download google/siglip-base-patch16-512" in outcome.messages


def test_pictures_longer_than_the_context_are_said(smolvlm_command: Any) -> None:
    shapes = [
        "--vision",
        "paligemma2-896",
        "--language",
        "smollm2-135m",
        "--scale-factor",
        2,
        "--dry-run",
    ]
    told = (
        "note: a split picture is 17,447 tokens, the language model's context 8,192: give a smaller"
    )
    assert told in smolvlm_command("build", *shapes, "--longest-edge-px", 3584).messages
    assert "context" not in smolvlm_command("build", *shapes, "--longest-edge-px", 896).messages


def test_wrong_usage_has_its_own_status(smolvlm_command: Any) -> None:
    assert smolvlm_command("build", "--vision", "siglip-base-512").status == 2
    assert smolvlm_command("build", "--cards", "--model-type", "llava").status == 2
    assert smolvlm_command("build", "--cards", "--dtype", "int8").status == 2
    assert (
        smolvlm_command(
            "build", "--base", "tinny", "--vision", "vit-s14", "--add-token", "<b>"
        ).status
        == 2
    )


def test_no_checkpoint_to_give_tokens_to_is_said_at_once(
    smolvlm_command: Any, tmp_path: Path
) -> None:
    missing = smolvlm_command(
        "build", "--base", "tinny", "--add-token", "<b>", "--out", tmp_path / "out"
    )
    assert missing.status == 1
    assert "tinny: no such folder\n  fix: give a checkpoint's folder" in missing.messages
    (tmp_path / "adapted").mkdir()
    (tmp_path / "adapted" / "adapter_config.json").write_text("{}")
    adapted = smolvlm_command(
        "build", "--base", tmp_path / "adapted", "--upgrade-tags", "--out", tmp_path / "out"
    )
    assert adapted.status == 1
    assert "this is an adapter, not a whole model\n  fix: merge it first" in adapted.messages
