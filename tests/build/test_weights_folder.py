"""Folders of weights: what is missing, broken or quantised is named, with the fix."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from smolvlm.build.weights_folder import model_type_of, open_weights, read_config
from smolvlm.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_file(
        {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.zeros(3)},
        tmp_path / "one.safetensors",
    )
    save_file({"c": torch.zeros(4, dtype=torch.uint8)}, tmp_path / "two.safetensors")
    where = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    return tmp_path


def test_tensors_come_in_float32_under_new_names_in_the_order_asked_for(folder: Path) -> None:
    found = open_weights(folder).read({"y": "b", "x": "a"})
    assert list(found) == ["y", "x"]
    assert torch.equal(found["x"], torch.ones(2))
    assert open_weights(folder).shape("c") == (4,)


def test_integers_are_quantised_weights(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        open_weights(folder).read({"c": "c"})
    assert str(caught.value) == (
        f"{folder}: c is stored as torch.uint8: quantised weights cannot be built upon\n"
        "  fix: take the checkpoint in float32, bfloat16 or float16; a built model can be "
        "quantised when it is trained"
    )


def test_missing_shards_and_tensors_are_named(folder: Path) -> None:
    with pytest.raises(ConfigError, match="tensors are missing: d, e, f and 1 more"):
        open_weights(folder).check(["a", "d", "e", "f", "g"])
    (folder / "two.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"weight files are missing: two\.safetensors"):
        open_weights(folder)


def test_a_folder_without_safetensors_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(
        ConfigError, match=r"no model.safetensors here, only pytorch_model.bin\n  fix: download the"
    ):
        open_weights(tmp_path)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    save_file({"a": torch.ones(100)}, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(
        (tmp_path / "model.safetensors").read_bytes()[:100]
    )
    with pytest.raises(ConfigError, match=r"model\.safetensors: not a readable safetensors file"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no config.json here"),
        ("{", "config.json: not JSON"),
        ("{}", "it names no model_type"),
        (
            '{"model_type": "llama", "quantization_config": {}}',
            "config.json has a quantization_config: quantised",
        ),
    ],
)
def test_a_folder_that_is_no_checkpoint_is_refused(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        model_type_of(tmp_path)
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match="no such folder"):
        model_type_of(tmp_path / "nowhere")


def test_a_configuration_that_transformers_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama", "hidden_size": "wide"}')
    with pytest.raises(ConfigError, match=r"hidden_size is wide, no size"):
        read_config(tmp_path)
