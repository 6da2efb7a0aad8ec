"""What cards say of loading: a form's own lines, and how an export was compared."""

import re
from pathlib import Path
from typing import get_args

import pytest
from huggingface_hub import ModelCard

from smolvlm.cli.export import FORMS, run_export
from smolvlm.publish.loading import LIBRARY, Form, loading_text, proof_text
from smolvlm.publish.model_card import write_export_card

PROMPT = {"greedy_equal": True, "max_logprob_difference": 0.0054}


def test_every_form_of_export_has_a_library() -> None:
    assert set(LIBRARY) == set(get_args(Form)) == {*FORMS, "adapter"}


@pytest.mark.parametrize("form", get_args(Form))
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
    run_export(full_run, to="transformers", out=out, merge=False, dtype=None, proves=True)
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "transformers"
    assert "| steps | 2 |" in card.text
    assert card.text.strip().splitlines()[0] == "# copy"


def test_a_merged_adapter_is_loaded_as_a_model(adapter_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "merged"
    run_export(adapter_run, to="transformers", out=out, merge=True, dtype=None, proves=True)
    card = ModelCard.load(out / "README.md")
    assert card.data.library_name == "transformers"
    assert "PeftModel" not in card.text


def test_nothing_is_said_of_a_model_that_no_run_made(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    assert write_export_card(tmp_path / "model", tmp_path, "onnx") is None
    assert not (tmp_path / "README.md").exists()
