"""ONNX graphs answer as transformers does, drift is seen, and what cannot be shown is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import numpy_helper
from transformers import AutoProcessor, Qwen3Config

from smolvlm.errors import ConfigError
from smolvlm.export.exported import Exported, read_exported
from smolvlm.export.onnx_folder import check_onnx, export_onnx, prove_onnx
from smolvlm.export.proof import proof_text
from tests.export.conftest import set_pictures, with_language_model


@pytest.fixture(scope="module")
def runtime() -> None:
    """The optional packages; their absence skips a test."""
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    pytest.importorskip("onnxruntime", reason="the extra `export` is not installed")


@pytest.fixture(scope="module")
def exported(checkpoint_folders: Any) -> Exported:
    return read_exported(checkpoint_folders["smolvlm"])


@pytest.fixture(scope="module")
def folder(runtime: None, exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("onnx") / "out"
    proof = export_onnx(exported, out, form="onnx", proves=True)
    assert proof.holds, proof_text(proof)
    return out


def test_the_graphs_answer_as_transformers(folder: Path) -> None:
    record = json.loads((folder / "proof.json").read_text())
    assert record["holds"] is True
    assert record["runtime"].startswith("onnxruntime ")
    for prompt in record["prompts"]:
        assert prompt["greedy_equal"]
        assert prompt["max_logprob_difference"] < 1e-4 < record["bound"]
        assert prompt["steps_compared"] == 8


def test_the_folder_holds_what_programs_around_the_graphs_read(folder: Path) -> None:
    names = {path.name for path in (folder / "onnx").iterdir()}
    assert names == {"vision_encoder.onnx", "embed_tokens.onnx", "decoder_model_merged.onnx"}
    assert not list(folder.rglob("*.safetensors"))
    assert not (folder / "staged").exists()
    assert AutoProcessor.from_pretrained(folder).image_processor.size["longest_edge"] == 128
    assert "chat_template" in json.loads((folder / "tokenizer_config.json").read_text())
    graph = onnx.load(folder / "onnx" / "decoder_model_merged.onnx").graph
    axes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in graph.input
    }
    assert axes["past_key_values.1.key"] == ["batch_size", 2, "past_sequence_length", 16]
    assert axes["inputs_embeds"] == ["batch_size", "sequence_length", 64]


def test_a_changed_weight_is_seen(folder: Path, exported: Exported, tmp_path: Path) -> None:
    graphs = shutil.copytree(folder / "onnx", tmp_path / "onnx")
    path = graphs / "vision_encoder.onnx"
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    changed = numpy_helper.from_array(1.2 * numpy_helper.to_array(weight), weight.name)
    weight.CopyFrom(changed)
    onnx.save(model, path)
    proof = prove_onnx(exported, graphs, staged=exported.folder)
    assert proof.holds is False
    assert max(each.max_logprob_difference for each in proof.comparisons) > proof.bound


def test_another_family_of_language_models_is_exported_too(
    runtime: None, exported: Exported, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
    settings |= {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    built = with_language_model(exported.folder, tmp_path / "qwen3", Qwen3Config(**settings))
    proof = export_onnx(read_exported(built), tmp_path / "out", form="onnx", proves=True)
    assert proof.holds, proof_text(proof)


def test_large_weights_lie_beside_their_graphs(
    runtime: None, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolvlm.export.onnx_models.MAX_INLINE_BYTES", 0)
    proof = export_onnx(exported, tmp_path / "out", form="onnx", proves=True)
    assert proof.holds, proof_text(proof)
    assert (tmp_path / "out" / "onnx" / "decoder_model_merged.onnx.data").is_file()


def test_the_first_releases_class_is_exported_too(
    runtime: None, checkpoint_folders: Any, tmp_path: Path
) -> None:
    other = read_exported(checkpoint_folders["idefics3"])
    proof = export_onnx(other, tmp_path / "out", form="onnx", proves=True)
    assert proof.holds, proof_text(proof)


def test_without_a_proof_the_record_says_so(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolvlm.export.onnx_folder.check_form", lambda *_, **__: None)
    monkeypatch.setattr("smolvlm.export.onnx_folder.write_graphs", lambda *_: [])
    proof = export_onnx(exported, tmp_path / "out", form="browser", proves=False)
    assert proof.holds is None
    record = json.loads((tmp_path / "out" / "proof.json").read_text())
    assert (record["holds"], record["not_run"]) == (None, "--no-proof was given")


def refusal(exported: Exported, **settings: Any) -> str:
    with pytest.raises(ConfigError) as error:
        check_onnx(exported, **{"form": "browser", "proves": True} | settings)
    return str(error.value)


def test_what_transformers_js_cannot_show_is_refused(exported: Exported, tmp_path: Path) -> None:
    assert "averaged 2 frames" in refusal(replace(exported, average_frames=2))
    folder = shutil.copytree(exported.folder, tmp_path / "overview")
    set_pictures(folder, image_splitting="overview", size={"longest_edge": 32})
    assert "one tile without its overview" in refusal(read_exported(folder))


def test_rotary_embeddings_that_change_are_refused(exported: Exported) -> None:
    config = exported.base.config.__class__.from_dict(exported.base.config.to_dict())
    config.text_config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0}
    changed = replace(exported, base=replace(exported.base, config=config))
    assert "of type dynamic, changes with the length" in refusal(changed, form="onnx")


def test_missing_packages_are_named_before_any_work(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolvlm.export.packages.find_spec", lambda _: None)
    named = "--to onnx: onnx and onnxscript and onnxruntime are not installed"
    with pytest.raises(ConfigError, match=named):
        export_onnx(exported, tmp_path / "out", form="onnx", proves=True)
    assert not (tmp_path / "out").exists()
