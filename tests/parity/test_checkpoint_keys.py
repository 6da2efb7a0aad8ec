"""Checkpoints whose files have keys and spellings of other public ones: the laws hold, or they are
refused by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smolvlm import api
from smolvlm.checkpoints.load import load_checkpoint, load_processor, read_model_config
from smolvlm.config.new_tokens import NewToken
from smolvlm.datasets.builder import open_mixture
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.errors import ConfigError
from smolvlm.inspect.stock_inputs import special_tokens_in
from smolvlm.model.vision import normalize_pixels
from smolvlm.records import Turn
from smolvlm.runs.mixture import settings_of_run
from tests.checkpoint_keys import BEYOND, ROWS, VARIANTS, make_variant, read, update, update_part
from tests.grids import part_of
from tests.packs import verified_pack
from tests.parity.laws import (
    assert_ids_are_the_stock_processors,
    one_step_config,
)

REFUSED = {
    "holes": r"gives <end_of_utterance> the id 49,279, and it is read as 49,191: there is a gap",
    "tied_by_text_config": "1 missing: lm_head.weight(.|\\n)*set tie_word_embeddings: true",
}
"""Variants that plain transformers would fill up with random values."""
HOLDING = [name for name in VARIANTS if name not in REFUSED]
KEPT = ("tied", "beyond", "one_file", "llama3_rope")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def rows(photos: dict[str, Path]) -> list[dict[str, Any]]:
    image = str(photos["coffee"])
    return [
        {"question": "<image>What is 2 + 2?", "answer": "4", "image": image},
        {"question": "<image>And this?", "answer": "A 5.", "image": image},
        {"question": "Hello", "answer": "Hi."},
    ]


@pytest.mark.parametrize("name", part_of(HOLDING, KEPT))
def test_the_laws_hold(root: Path, rows: list[dict[str, Any]], name: str) -> None:
    folder = make_variant(root / name, name)
    assert_ids_are_the_stock_processors(folder, "A cat.")
    assert_ids_are_the_stock_processors(folder, "12")
    before = read_prompt_settings(load_processor(str(folder)))
    turns = [Turn(role="user", blocks=("Hi",)), Turn(role="assistant", blocks=("yes",))]
    encoded = before.encoder().encode_turns(turns, layouts=[])
    learned = before.text.pieces(encoded.input_ids[encoded.learned].tolist())
    assert learned == [" yes", "<end_of_utterance>"]
    config = one_step_config(folder, root / f"run-{name}", rows)
    assert verified_pack(config, num_samples=2).verification.holds
    api.train(config)
    after = read_prompt_settings(load_processor(str(root / f"run-{name}")))
    assert after.template.source == before.template.source
    assert (after.tokens, after.media) == (before.tokens, before.media)
    for key in ("scale_factor", "image_token_id", "model_type", "tie_word_embeddings"):
        ours, theirs = (read(place / "config.json") for place in (root / f"run-{name}", folder))
        assert ours.get(key) == theirs.get(key), key
    shutil.rmtree(root / f"run-{name}")


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_made_up_is_refused(root: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[name]):
        load_checkpoint(str(make_variant(root / name, name)))


@pytest.fixture(scope="module")
def beyond(root: Path) -> Path:
    return make_variant(root / "with_beyond", "beyond")


def test_a_token_without_a_row_stays_text_where_somebody_writes_it(
    beyond: Path, tmp_path: Path
) -> None:
    rows = [{"question": f"Where does it end? {BEYOND}", "answer": f"Here: {BEYOND}"}]
    config = one_step_config(beyond, tmp_path / "out", rows)
    settings = settings_of_run(config)
    ids = settings.prompt.text(f"a {BEYOND} b")[0]
    assert max(ids) < ROWS
    assert settings.prompt.text.decode(ids) == f"a {BEYOND} b"
    encoder = settings.prompt.encoder()
    (row,) = open_mixture(config.data.mixture, config.data)[0].all_rows()
    assert special_tokens_in(row, encoder.tokens_kept_as_text) == [BEYOND], "not compared"
    api.train(config)
    (finding,) = api.check(config, num_workers=1).findings
    assert finding.kind == "prompt_token_in_text"
    assert f"`{BEYOND}` stays text here: " in finding.message
    assert "the model has no row for it" in finding.message


def test_beside_new_tokens_the_embedding_gets_a_row_for_it(beyond: Path, tmp_path: Path) -> None:
    rows = [{"question": "Where does it end?", "answer": f"Here: {BEYOND}<box>"}]
    config = one_step_config(beyond, tmp_path / "out", rows)
    model = config.model.model_copy(update={"new_tokens": [NewToken(token="<box>")]})
    config = config.model_copy(update={"model": model})
    text = settings_of_run(config).prompt.text
    assert len(text("<box>")[0]) == 1
    assert text(BEYOND)[0] == (ROWS,)
    api.train(config)
    saved = load_checkpoint(str(tmp_path / "out")).model
    assert saved.get_input_embeddings().weight.shape[0] == ROWS + 1


def test_a_tokenizer_of_another_model_is_refused(
    checkpoint_folders: dict[Any, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(checkpoint_folders["smolvlm"], folder)
    update_part(folder, "text_config", vocab_size=49_000)
    config = one_step_config(folder, tmp_path / "out", [{"question": "a", "answer": "b"}])
    message = r"the tokenizer has '.*' as 49,\d+, and the model has rows for 49,000 tokens"
    with pytest.raises(ConfigError, match=message):
        settings_of_run(config)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("preprocessor_config.json", {"max_image_size": 32}, r"max_image_size = 32: must be a map"),
        (
            "preprocessor_config.json",
            {"max_image_size": {"height": 32, "width": 32}},
            r"max_image_size = \{'height': 32, 'width': 32\}: .*write max_image_size: "
            r"\{longest_edge: PIXELS\} in preprocessor_config\.json",
        ),
        ("preprocessor_config.json", {"size": 128}, r"size = .*must be a mapping with `longest_ed"),
        (
            "preprocessor_config.json",
            {"size": {"height": 128, "width": 128}, "max_image_size": [32, 32]},
            r"2 problems:(.|\n)*size = (.|\n)*max_image_size = \[32, 32\]",
        ),
        ("preprocessor_config.json", {"resample": "lanczos"}, r"resample = 'lanczos': must be the"),
        ("preprocessor_config.json", {"do_resize": False}, r"do_resize = false: pictures are alwa"),
        ("preprocessor_config.json", {"image_mean": [0.5]}, r"image_mean = .*: must be a nu"),
        ("processor_config.json", {"image_seq_len": "4"}, r"image_seq_len = '4': must be a whole"),
    ],
)
def test_a_processors_key_of_another_kind_is_named(
    checkpoint_folders: dict[Any, Path],
    tmp_path: Path,
    file: str,
    changes: dict[str, Any],
    message: str,
) -> None:
    folder = tmp_path / "spelled"
    shutil.copytree(checkpoint_folders["idefics3"], folder)
    update(folder / file, **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        load_processor(str(folder))
    assert caught.value.where == str(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "cannot load the processor"),
        ("{", "cannot load the processor"),
    ],
)
def test_a_processors_file_that_is_no_mapping_is_refused(
    checkpoint_folders: dict[Any, Path], tmp_path: Path, content: str, message: str
) -> None:
    folder = tmp_path / "spelled"
    shutil.copytree(checkpoint_folders["idefics3"], folder)
    (folder / "preprocessor_config.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_processor(str(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale_factor": "2"}, r"cannot read config\.json: .*'scale_factor' expected int"),
        ({"text_config": [1]}, r"config\.json has no text_config"),
        ({"text_config": None}, "config.json has no text_config"),
        ({"vision_config": None}, "config.json has no vision_config"),
    ],
)
def test_a_models_key_of_another_kind_is_named(
    checkpoint_folders: dict[Any, Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    folder = tmp_path / "spelled"
    shutil.copytree(checkpoint_folders["smolvlm"], folder)
    update(folder / "config.json", **changes)
    with pytest.raises(ConfigError, match=message):
        read_model_config(str(folder))


def test_null_where_a_value_is_needed_is_named(
    checkpoint_folders: dict[Any, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "spelled"
    shutil.copytree(checkpoint_folders["smolvlm"], folder)
    content = read(folder / "config.json") | {"tie_word_embeddings": None}
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(ConfigError, match="'tie_word_embeddings' expected bool"):
        read_model_config(str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_normalize": False, "do_rescale": False},
        {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 1.0, 2.0], "rescale_factor": 0.01},
    ],
)
def test_pixels_are_scaled_as_the_stock_processor_scales_them(
    checkpoint_folders: dict[Any, Path], tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = tmp_path / "spelled"
    shutil.copytree(checkpoint_folders["smolvlm"], folder)
    update(folder / "preprocessor_config.json", **changes)
    checkpoint = load_checkpoint(str(folder))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    stock: Any = checkpoint.processor.image_processor
    size = {"longest_edge": 32}
    theirs = stock(
        [[Image.fromarray(pixels)]], do_image_splitting=False, size=size, return_tensors="pt"
    )["pixel_values"][0]
    tiles = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    ours = normalize_pixels(tiles, checkpoint.model.pixel_scaling, dtype=torch.float32)
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)


def test_without_a_token_that_pads_the_end_of_an_answer_does(
    checkpoint_folders: dict[Any, Path], tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    folder = tmp_path / "spelled"
    shutil.copytree(checkpoint_folders["smolvlm"], folder)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        update(folder / file, pad_token=None)
    prompt = read_prompt_settings(load_processor(str(folder)))
    assert prompt.tokens.pad == prompt.tokens.end_of_turn
    config = one_step_config(folder, tmp_path / "out", rows)
    assert verified_pack(config, num_samples=2).verification.holds
