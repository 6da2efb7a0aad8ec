"""Language models as folders: every family that is built upon, packed and alone, and what is
refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from smolvlm import api
from smolvlm.build.build import build_model, write_build
from smolvlm.build.build_plan import BuildRecipe, plan_build
from smolvlm.build.language_folder import read_language_folder
from smolvlm.errors import ConfigError
from tests.language_families import LANGUAGE_CONFIGS
from tests.packs import verified_pack


@torch.no_grad()
@pytest.mark.parametrize("family", LANGUAGE_CONFIGS)
def test_text_logits_are_the_language_models_to_the_bit(
    family: str, families: dict[str, Path], siglip_tower: Path
) -> None:
    source = AutoModelForCausalLM.from_pretrained(families[family]).eval()
    recipe = BuildRecipe(language=str(families[family]), vision=str(siglip_tower))
    model = build_model(plan_build(replace(recipe)))[0].eval()
    assert model.config.text_config.model_type == family
    ids = torch.randint(0, 280, (2, 40), generator=torch.Generator().manual_seed(1))
    found = model(input_ids=ids).logits[..., :280]
    assert torch.equal(found, source(input_ids=ids).logits[..., :280])


@pytest.mark.parametrize("family", LANGUAGE_CONFIGS)
def test_packed_equals_alone_and_a_run_saves_what_the_stock_classes_load(
    family: str,
    families: dict[str, Path],
    siglip_tower: Path,
    photos: dict[str, Path],
    tmp_path: Path,
) -> None:
    recipe = BuildRecipe(language=str(families[family]), vision=str(siglip_tower))
    write_build(plan_build(recipe), tmp_path / "built")
    coffee = str(photos["coffee"])
    rows = [
        {"question": "<image>What is it?", "answer": "A cup.", "image": coffee},
        {"question": "<image>And this?", "answer": "The same.", "image": coffee},
        {
            "messages": [
                {"role": "user", "content": "Hello"},
                {"role": "assistant", "content": "Hi.", "weight": 0.5},
            ]
        },
    ]
    settings = {
        "model": {"path": str(tmp_path / "built")},
        "data": {"image_splitting": False, "allow_outside_root": True, "supervise": "text"},
        "train": {"output_dir": str(tmp_path / "run"), "max_steps": 1, "packs_per_step": 1},
    }
    config = api.load_config(settings, rows=rows)
    verified = verified_pack(config, num_samples=3)
    assert len(verified.rows) == 3
    assert verified.verification.holds, verified.verification
    assert {0.5, 1.0} == set(verified.pack.target_weights.tolist())
    api.train(config)
    answer = api.load(str(tmp_path / "run")).ask("What?", max_new_tokens=2)
    assert isinstance(answer, str)


def test_windows_are_refused(families: dict[str, Path], tmp_path: Path) -> None:
    changes: list[tuple[str, dict[str, Any], str]] = [
        ("mistral", {"sliding_window": 64}, "a window of 64 tokens"),
        (
            "qwen3",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            "sliding_attention|a window of 8 tokens",
        ),
    ]
    for number, (family, change, message) in enumerate(changes):
        folder = tmp_path / str(number)
        shutil.copytree(families[family], folder)
        content = json.loads((folder / "config.json").read_text())
        content.pop("layer_types", None)
        (folder / "config.json").write_text(json.dumps(content | change))
        with pytest.raises(ConfigError, match=message):
            read_language_folder(folder)


def test_everything_but_the_vocabulary_is_kept_of_a_folders_settings(other_llama: Path) -> None:
    settings = read_language_folder(other_llama).text_config
    assert settings["rope_parameters"]["rope_type"] == "llama3"
    assert (settings["attention_bias"], settings["mlp_bias"], settings["head_dim"]) == (
        True,
        True,
        12,
    )
    assert settings["rms_norm_eps"] == 1e-4
    assert not {"vocab_size", "bos_token_id", "tie_word_embeddings", "dtype"} & settings.keys()


def test_a_folder_that_lacks_its_head_or_is_no_llama_is_refused(
    other_llama: Path, siglip: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="a model of type siglip, not of a family"):
        read_language_folder(siglip)
    shutil.copytree(other_llama, tmp_path / "copy")
    content = json.loads((tmp_path / "copy" / "config.json").read_text())
    (tmp_path / "copy" / "config.json").write_text(json.dumps(content | {"num_hidden_layers": 3}))
    with pytest.raises(
        ConfigError, match=r"tensors are missing: model.layers.2.self_attn.q_proj.weight"
    ):
        read_language_folder(tmp_path / "copy")
