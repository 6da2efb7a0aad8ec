"""What converters find: flat files, a named language model, linked weights, merged adapters."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor

from smolvlm.export.exported import read_exported
from smolvlm.export.staged import stage, template_of, write_processor_files


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_staged_model_is_flat_and_names_its_language_model(
    checkpoint_folders: Any, tmp_path: Path
) -> None:
    exported = read_exported(checkpoint_folders["smolvlm"])
    stage(exported, tmp_path, template="{{ messages }}")
    assert read(tmp_path / "config.json")["text_config"]["architectures"] == ["LlamaForCausalLM"]
    assert (tmp_path / "model.safetensors").is_symlink()
    tokenizer = read(tmp_path / "tokenizer_config.json")
    assert tokenizer["chat_template"] == "{{ messages }}"
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ messages }}"
    assert not (tmp_path / "chat_template.json").exists()
    assert read(checkpoint_folders["smolvlm"] / "config.json")["text_config"].get(
        "architectures"
    ) in (None, ["LlamaForCausalLM"])


def test_nothing_of_code_beside_a_checkpoint_is_left(
    checkpoint_folders: Any, tmp_path: Path
) -> None:
    source = shutil.copytree(checkpoint_folders["smolvlm"], tmp_path / "source")
    names = ("config.json", "tokenizer_config.json", "preprocessor_config.json")
    for name in names:
        content = read(source / name) | {"auto_map": {"AutoConfig": "code.Config"}}
        (source / name).write_text(json.dumps(content))
    (tmp_path / "staged").mkdir()
    stage(read_exported(source), tmp_path / "staged", template="{{ messages }}")
    assert not any("auto_map" in read(tmp_path / "staged" / name) for name in names)


def test_weights_in_another_form_are_saved_anew(checkpoint_folders: Any, tmp_path: Path) -> None:
    source = shutil.copytree(checkpoint_folders["smolvlm"], tmp_path / "source")
    weights = load_file(source / "model.safetensors")
    torch.save(weights, source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    (tmp_path / "staged").mkdir()
    stage(read_exported(source), tmp_path / "staged", template="{{ messages }}")
    found = load_file(tmp_path / "staged" / "model.safetensors")
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


@pytest.mark.parametrize("model_type", ["smolvlm", "idefics3"])
def test_settings_that_transformers_nests_are_written_flat(
    checkpoint_folders: Any, tmp_path: Path, model_type: str
) -> None:
    processor: Any = AutoProcessor.from_pretrained(checkpoint_folders[model_type])
    processor.save_pretrained(tmp_path)
    assert "image_processor" in read(tmp_path / "processor_config.json")
    write_processor_files(tmp_path, processor, template=template_of(processor))
    pictures = read(tmp_path / "preprocessor_config.json")
    assert pictures["size"] == {"longest_edge": 128}
    assert pictures["max_image_size"] == {"longest_edge": 32}
    assert pictures["image_processor_type"] in ("SmolVLMImageProcessor", "Idefics3ImageProcessor")
    again: Any = AutoProcessor.from_pretrained(tmp_path)
    assert again.image_processor.size["longest_edge"] == 128
    assert again.image_seq_len == processor.image_seq_len
    assert again.chat_template == processor.chat_template
