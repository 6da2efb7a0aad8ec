"""The assembled base model: stock loading, determinism, and parts that are the parts they are said
to be."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.build.assemble import (
    RECIPE_FILE,
    BaseRecipe,
    RandomLanguage,
    SmolLM2Layers,
    assemble_base_model,
    recipe_fingerprint,
)
from smolvlm.build.calibration import drawn_pictures, tower_features
from smolvlm.build.language_model import read_language_model
from smolvlm.build.sources import language_model_gguf

SMALL = BaseRecipe(
    tile_side_px=56,
    longest_edge_px=112,
    vision_layers=1,
    language=RandomLanguage(hidden_size=32, num_layers=1, num_heads=2),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return assemble_base_model(tmp_path_factory.mktemp("base") / "small", recipe=SMALL)


def test_stock_classes_load_it_and_answer(folder: Path) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    batch = processor(
        text="<image>What?", images=[[Image.new("RGB", (64, 64), "teal")]], return_tensors="pt"
    )
    assert batch["pixel_values"].shape == (1, 5, 3, 56, 56)
    assert (batch["input_ids"] == 49_190).sum() == 5 * 4
    generated = model.generate(**batch, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert generated.shape[1] == batch["input_ids"].shape[1] + 2


def test_features_are_standardised_and_enter_with_the_spread_of_the_embeddings(
    folder: Path,
) -> None:
    model = AutoModelForImageTextToText.from_pretrained(folder)
    features = tower_features(model.model.vision_model, drawn_pictures(side_px=56))
    flat = features.flatten(0, 1)
    torch.testing.assert_close(flat.mean(0), torch.zeros(384), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.std(0), torch.ones(384), atol=1e-3, rtol=0)
    with torch.no_grad():
        spread = model.model.connector(features).std() / model.get_input_embeddings().weight.std()
    assert 0.8 < spread < 1.25


def test_the_same_recipe_gives_the_same_bytes_and_another_seed_others(
    folder: Path, tmp_path: Path
) -> None:
    def digests(path: Path) -> dict[str, str]:
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.iterdir()}

    assert digests(assemble_base_model(tmp_path / "again", recipe=SMALL)) == digests(folder)
    other = digests(assemble_base_model(tmp_path / "other", recipe=replace(SMALL, seed=1)))
    assert {name for name, digest in digests(folder).items() if other[name] != digest} == {
        "model.safetensors",
        RECIPE_FILE,
    }


def test_a_folder_with_the_result_is_left_alone_and_any_other_replaced(
    folder: Path, tmp_path: Path
) -> None:
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert assemble_base_model(folder, recipe=SMALL) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    stale = tmp_path / "stale"
    stale.mkdir()
    (stale / RECIPE_FILE).write_text("another recipe")
    assemble_base_model(stale, recipe=SMALL)
    assert (stale / RECIPE_FILE).read_text() == recipe_fingerprint(SMALL)


def test_fingerprints_tell_recipes_apart() -> None:
    recipes = [
        SMALL,
        replace(SMALL, seed=1),
        replace(SMALL, language=SmolLM2Layers(num_layers=2)),
        BaseRecipe(),
    ]
    assert len({recipe_fingerprint(recipe) for recipe in recipes}) == len(recipes)


@pytest.mark.slow
def test_smollm2_layers_are_smollm2s(tmp_path: Path) -> None:
    recipe = replace(SMALL, language=SmolLM2Layers(num_layers=2), model_type="idefics3")
    model = AutoModelForImageTextToText.from_pretrained(
        assemble_base_model(tmp_path / "base", recipe=recipe)
    )
    source = read_language_model(language_model_gguf(), num_layers=2)
    state = model.model.text_model.state_dict()
    assert torch.equal(state["embed_tokens.weight"][:49_152], source.pop("embed_tokens.weight"))
    assert all(torch.equal(state[name], tensor) for name, tensor in source.items())
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight)
    assert model.lm_head.weight is not model.get_input_embeddings().weight
