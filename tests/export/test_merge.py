"""Merged is adapted, copied is what it was, and what cannot be exported says why."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.adapters import TrainedBeside, attach_adapters
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.peft_layers import ADAPTER_WEIGHTS
from smolvlm.checkpoints.processor_files import save_processor
from smolvlm.config.adapters import AdapterConfig
from smolvlm.errors import ConfigError
from smolvlm.export.merge import export_for_transformers
from smolvlm.model.towers import Tower
from tests.conftest import MODEL_TYPES

TOLERANCE = 1e-5


def prompt_of(folder: Path) -> Any:
    processor: Any = AutoProcessor.from_pretrained(folder)
    message = {
        "role": "user",
        "content": [{"type": "image"}, {"type": "text", "text": "a  2 ½: what?"}],
    }
    text = processor.apply_chat_template([message], add_generation_prompt=True)
    picture = Image.linear_gradient("L").resize((70, 40)).convert("RGB")
    return processor(text=text, images=[[picture]], return_tensors="pt")


def logits(model: Any, inputs: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def trained_adapter(
    base: Path, prompts: Any, folder: Path, kind: Any, model_type: ModelType
) -> Any:
    """Train a little, save as a run does, and return the model."""
    model = load_checkpoint(str(base)).model
    kinds: dict[Tower, AdapterConfig] = {
        tower: AdapterConfig(type=kind, r=4) for tower in ("vision_tower", "language_model")
    }
    attached = attach_adapters(
        model, kinds, base=str(base), seed=0, beside=TrainedBeside(whole=["connector"])
    )
    freeze(model, LearningRates(full={"connector": 1.0}, adapter=dict.fromkeys(kinds, 1.0)))
    inputs = prompt_of(base)
    optimizer = torch.optim.SGD(
        [value for value in model.parameters() if value.requires_grad], lr=0.3
    )
    for _ in range(2):
        optimizer.zero_grad()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        optimizer.step()
    attached.save(model, folder)
    save_processor(str(base), folder, media=prompts[model_type].media)
    return model.eval()


@pytest.mark.parametrize(
    ("kind", "model_type"),
    [*((kind, "smolvlm") for kind in ("lora", "dora", "rslora", "pissa")), ("lora", "idefics3")],
)
def test_merged_is_adapted_in_plain_transformers(
    checkpoint_folders: Any, prompts: Any, tmp_path: Path, kind: str, model_type: ModelType
) -> None:
    base = checkpoint_folders[model_type]
    model = trained_adapter(base, prompts, tmp_path / "adapter", kind, model_type)
    export_for_transformers(tmp_path / "adapter", tmp_path / "merged", merge=True)
    merged: Any = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "merged", dtype=torch.float32
    ).eval()
    assert type(merged).__module__.startswith("transformers.")
    inputs = prompt_of(tmp_path / "merged")
    torch.testing.assert_close(
        logits(merged, inputs), logits(model, inputs), rtol=0, atol=TOLERANCE
    )
    before: Any = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32).eval()
    assert (logits(merged, inputs) - logits(before, inputs)).abs().max() > 100 * TOLERANCE
    assert (
        load_file(tmp_path / "merged" / "model.safetensors").keys()
        == load_file(base / "model.safetensors").keys()
    )


def test_without_merge_an_adapter_is_copied_as_it_is(
    checkpoint_folders: Any, prompts: Any, tmp_path: Path
) -> None:
    trained_adapter(checkpoint_folders["smolvlm"], prompts, tmp_path / "adapter", "lora", "smolvlm")
    (tmp_path / "adapter" / "optimizer.pt").write_bytes(b"large")
    written = export_for_transformers(tmp_path / "adapter", tmp_path / "copy", merge=False)
    names = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert {path.name for path in written} == names - {"optimizer.pt"}
    assert ADAPTER_WEIGHTS in names
    assert all(
        path.read_bytes() == (tmp_path / "adapter" / path.name).read_bytes() for path in written
    )


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_whole_model_is_copied_and_loads(
    checkpoint_folders: Any, tmp_path: Path, model_type: ModelType
) -> None:
    base = checkpoint_folders[model_type]
    export_for_transformers(base, tmp_path / "copy", merge=False)
    inputs = prompt_of(tmp_path / "copy")
    ours, theirs = (
        AutoModelForImageTextToText.from_pretrained(folder) for folder in (tmp_path / "copy", base)
    )
    assert torch.equal(logits(ours, inputs), logits(theirs, inputs))


def test_what_cannot_be_exported_says_why(
    checkpoint_folders: Any, prompts: Any, tmp_path: Path
) -> None:
    base = checkpoint_folders["smolvlm"]
    with pytest.raises(ConfigError, match="there is no adapter to merge"):
        export_for_transformers(base, tmp_path / "out", merge=True)
    with pytest.raises(ConfigError, match="no such folder"):
        export_for_transformers(tmp_path / "none", tmp_path / "out", merge=False)
    with pytest.raises(ConfigError, match=r"neither config\.json nor adapter_config\.json here"):
        export_for_transformers(tmp_path, tmp_path / "out", merge=False)
    with pytest.raises(ConfigError, match="there is something in it already"):
        export_for_transformers(base, base, merge=False)
    trained_adapter(base, prompts, tmp_path / "adapter", "lora", "smolvlm")
    (tmp_path / "adapter" / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match="no processor beside the adapter"):
        export_for_transformers(tmp_path / "adapter", tmp_path / "out", merge=True)
    assert not (tmp_path / "out").exists()


def test_damaged_weights_are_not_copied(checkpoint_folders: Any, tmp_path: Path) -> None:
    broken = shutil.copytree(checkpoint_folders["smolvlm"], tmp_path / "broken")
    content = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(content[:-10])
    with pytest.raises(ConfigError, match="not a readable safetensors file"):
        export_for_transformers(broken, tmp_path / "copy", merge=False)
    assert not (tmp_path / "copy").exists()
