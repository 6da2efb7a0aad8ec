"""What cards say of loading: a form's own lines, and how an export was compared."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
from huggingface_hub import ModelCard

from smolvlm import api
from smolvlm.cli.export_command import FORMS
from smolvlm.errors import ConfigError, DriftError
from smolvlm.export.proof import Proof
from smolvlm.publish.loading import LIBRARY, ExportForm, Form, loading_text, proof_text
from smolvlm.publish.model_card import write_export_card
from smolvlm.runs import exporting
from smolvlm.runs.exporting import DTYPES, Exported, export_checkpoint

PROMPT = {"greedy_equal": True, "max_logprob_difference": 0.0054}


def test_every_form_of_export_has_a_library() -> None:
    assert set(LIBRARY) == {*get_args(ExportForm), "adapter"} == {*FORMS, "adapter"}
    assert set(DTYPES) == {*FORMS} - {"transformers"}


@pytest.mark.parametrize("form", LIBRARY)
def test_a_section_and_its_fences_are_whole(form: Form) -> None:
    text = loading_text(form, base=None, files=["model-f16.gguf", "mmproj-model-f16.gguf"])
    assert text.startswith("## How to load it\n")
    assert text.count("```") in (0, 2)
    assert not re.search(r"\{\{|\}\}|\{\w+\}", text), "nothing is left to be filled in"


def test_llama_cpp_is_told_both_files() -> None:
    text = loading_text("gguf", base=None, files=["mmproj-model.gguf", "model.gguf", "proof.json"])
    assert "--model model.gguf --mmproj mmproj-model.gguf" in text


def test_an_adapters_base_is_named() -> None:
    assert 'from_pretrained("owner/base")' in loading_text("adapter", base="owner/base", files=[])


@pytest.mark.parametrize(
    ("proof", "said"),
    [
        ({"holds": True, "prompts": [PROMPT, PROMPT]}, "in 2 of 2, the"),
        ({"holds": True, "prompts": [PROMPT]}, "0.0054 nats apart; within the bound of 0.06"),
        (
            {"holds": False, "prompts": [PROMPT, PROMPT | {"greedy_equal": False}]},
            "in 1 of 2",
        ),
        ({"holds": False, "prompts": [PROMPT]}, "**not** within"),
        ({"holds": None, "prompts": [], "not_run": "node is missing"}, "(node is missing)"),
    ],
)
def test_a_proof_in_words(proof: dict[str, object], said: str) -> None:
    text = " ".join(proof_text({"runtime": "xllamacpp 1", "bound": 0.06, **proof}).split())
    assert said in text


def test_an_exported_run_has_its_card(full_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    done = export_checkpoint(full_run, out, to="transformers")
    assert out / "README.md" in done.files
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "transformers"
    assert "| steps | 2 |" in card.text
    assert card.text.strip().splitlines()[0] == "# copy"


def test_a_merged_adapter_is_loaded_as_a_model(adapter_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    export_checkpoint(adapter_run, out, to="transformers", merge=True)
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "transformers"
    assert "PeftModel" not in card.text


def test_nothing_is_said_of_a_model_that_no_run_made(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert write_export_card(tmp_path / "model", tmp_path, "onnx") is None
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"to": "gguff"}, "'gguff' is no form of an export"),
        ({"to": "transformers", "dtype": "f16"}, "has no effect with --to transformers"),
        ({"to": "transformers", "proves": False}, "has no effect with --to transformers"),
        ({"to": "onnx", "merge": True}, "has no effect with --to onnx"),
        ({"to": "onnx", "dtype": "q8_0"}, "--to onnx has no such weights"),
    ],
)
def test_what_cannot_be_is_refused_before_work(
    asked: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        export_checkpoint(tmp_path / "nothing", tmp_path / "out", **asked)
    assert not (tmp_path / "out").exists()


def test_from_python_drift_is_an_error(
    full_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = Proof(runtime="a runtime", bound=0.0, comparisons=(), not_run=None)
    drifted = Exported(files=(), proof=proof)
    monkeypatch.setattr(exporting, "export_checkpoint", lambda *_, **__: drifted)
    monkeypatch.setattr(Proof, "holds", False)
    with pytest.raises(DriftError, match="answers otherwise in a runtime"):
        api.export(full_run, tmp_path / "out", to="onnx")
    monkeypatch.setattr(Proof, "holds", None)
    assert api.export(full_run, tmp_path / "out", to="onnx") == []
