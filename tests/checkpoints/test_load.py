"""Checkpoints of the family load, model and processor fitted to each other; anything else says what
is wrong."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer

from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.errors import ConfigError
from smolvlm.model.attention.dense import TILE_ATTENTION
from smolvlm.model.attention.rule import SCOPE_ATTENTION
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES
from smolvlm.model.vision import PixelScaling


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    """A checkpoint of the test's own."""
    return shutil.copytree(folder, tmp_path / "copy")


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def refusal(path: str | Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(str(path))
    return str(caught.value)


def test_both_model_types_load_as_what_they_are(loaded, model_type) -> None:
    checkpoint = loaded[model_type]
    assert type(checkpoint.model) is MODEL_CLASSES[model_type]
    assert isinstance(checkpoint.model, getattr(transformers, type(checkpoint.model).__name__))
    assert checkpoint.model.config.model_type == model_type
    assert type(checkpoint.processor).__name__.lower() == f"{model_type}processor"
    assert checkpoint.model.dtype is torch.float32
    assert checkpoint.model.pixel_scaling == PixelScaling(
        rescale_factor=1 / 255, mean=(0.5,) * 3, std=(0.5,) * 3
    )


def test_the_language_model_attends_by_scopes_and_the_tower_within_tiles(checkpoint) -> None:
    assert checkpoint.model.config.text_config._attn_implementation == SCOPE_ATTENTION
    assert checkpoint.model.config.vision_config._attn_implementation == TILE_ATTENTION


def test_weights_are_held_in_the_dtype_asked_for(folder: Path) -> None:
    model = load_checkpoint(str(folder), dtype=torch.bfloat16).model
    assert {value.dtype for value in model.parameters()} == {torch.bfloat16}


def test_the_weights_are_the_files(folder: Path, checkpoint) -> None:
    stock = transformers.AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    ours = checkpoint.model.state_dict()
    assert ours.keys() == stock.state_dict().keys()
    assert all(torch.equal(ours[name], value) for name, value in stock.state_dict().items())


def test_the_tokenizer_is_tokenizer_jsons_own(loaded, checkpoint_folders, model_type) -> None:
    """transformers 5.23 rebuilds Idefics3's without its splitting of digits; ids of two spaces and
    a digit tell."""
    text = "a  2 ½"
    ids = loaded[model_type].processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    own = Tokenizer.from_file(str(checkpoint_folders[model_type] / "tokenizer.json"))
    assert ids == own.encode(text, add_special_tokens=False).ids


def test_no_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere") == (
        f"{tmp_path}/nowhere: no such folder\n"
        "  fix: give a checkpoint's folder (config.json, model.safetensors, processor files) or a "
        "hub id, OWNER/NAME"
    )


def test_a_relative_path_that_is_not_there_is_not_looked_up_on_the_hub() -> None:
    assert refusal("./nowhere").startswith("./nowhere: no such folder\n")


@pytest.mark.parametrize("path", ["tinny", "a/b/c"])
def test_what_cannot_be_a_hub_id_is_not_looked_up_on_the_hub(path: str) -> None:
    assert refusal(path).startswith(f"{path}: no such folder\n")


def test_no_config(copy: Path) -> None:
    (copy / "config.json").unlink()
    assert refusal(copy).startswith(
        f"{copy}: no config.json here\n  fix: give a checkpoint's folder"
    )


def test_a_config_that_is_no_json(copy: Path) -> None:
    (copy / "config.json").write_text("{")
    assert refusal(copy).startswith(f"{copy}/config.json: not JSON: ")


def test_another_model_type(copy: Path) -> None:
    edit(copy / "config.json", model_type="llama")
    assert refusal(copy) == (
        f"{copy}: model type llama is not of the SmolVLM family (smolvlm, idefics3)\n"
        "  fix: use SmolVLM, SmolVLM2 or an Idefics3-type checkpoint"
    )


def test_no_picture_settings(copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()
    text = refusal(copy)
    assert text.startswith(f"{copy}: cannot load the processor: ")
    assert (
        "  fix: copy preprocessor_config.json, processor_config.json and the tokenizer's files"
        in text
    )


def test_no_tokenizer_json(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    assert refusal(copy) == (
        f"{copy}: no tokenizer.json here\n  fix: save the checkpoint with its fast tokenizer"
    )


def test_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    text = refusal(copy)
    assert text.startswith(f"{copy}: cannot load the weights: ")
    assert "model.safetensors" in text


def test_tiles_of_another_side(copy: Path) -> None:
    edit(copy / "preprocessor_config.json", max_image_size={"longest_edge": 64})
    assert refusal(copy) == (
        f"{copy}: the processor cuts tiles of 64 px, the vision tower takes 32 px\n"
        "  fix: use the processor that belongs to the checkpoint (max_image_size.longest_edge = "
        "image_size)"
    )


def test_another_number_of_tokens_a_tile(copy: Path) -> None:
    edit(copy / "processor_config.json", image_seq_len=9)
    assert refusal(copy) == (
        f"{copy}: the processor writes 9 image tokens a tile, the model fills 4\n"
        "  fix: set image_seq_len to 4 in processor_config.json"
    )


def test_another_image_token(copy: Path) -> None:
    edit(copy / "config.json", image_token_id=49_191)
    assert refusal(copy) == (
        f"{copy}: <image> is 49190 in the tokenizer and 49191 in config.json\n"
        "  fix: use the tokenizer that belongs to the checkpoint"
    )
