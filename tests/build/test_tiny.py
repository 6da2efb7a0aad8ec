"""The tiny model: a whole stock checkpoint, the same bytes from the same seed."""

import hashlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.build.processor import ModelType
from smolvlm.build.tiny import tiny_model


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.parametrize("model_type", ["idefics3", "smolvlm"])
def test_stock_classes_load_it_and_generate(tmp_path: Path, model_type: ModelType) -> None:
    folder = tiny_model(tmp_path / "tiny", model_type=model_type)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    assert model.config.model_type == model_type
    assert model.lm_head.weight is not model.get_input_embeddings().weight
    batch = processor(
        text="<image>What?", images=[[Image.new("RGB", (60, 40), "blue")]], return_tensors="pt"
    )
    assert (batch["input_ids"] == 49_190).sum() == 4 * batch["pixel_values"].shape[1]
    generated = model.generate(**batch, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    assert generated.shape[1] == batch["input_ids"].shape[1] + 2


def test_the_seed_decides_the_bytes_and_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first, again = digests(tiny_model(tmp_path / "a")), digests(tiny_model(tmp_path / "b"))
    other = digests(tiny_model(tmp_path / "c", seed=1))
    assert first == again
    assert {name for name in first if first[name] != other[name]} == {"model.safetensors"}
    assert torch.equal(state, torch.get_rng_state())


def test_writing_again_replaces_the_folder(tmp_path: Path) -> None:
    tiny_model(tmp_path / "tiny")
    (tmp_path / "tiny" / "left-over").touch()
    tiny_model(tmp_path / "tiny", model_type="idefics3")
    assert not (tmp_path / "tiny" / "left-over").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
