"""What node writes is read; where transformers.js is not here, the proof says so; where it is, it
answers as transformers does."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolvlm.export import transformers_js
from smolvlm.export.exported import Exported, read_exported
from smolvlm.export.onnx_folder import export_onnx
from smolvlm.export.proof import proof_text
from smolvlm.export.transformers_js import answer_from, installed_version, prove_browser


@pytest.fixture(scope="module")
def exported(checkpoint_folders: Any) -> Exported:
    return read_exported(checkpoint_folders["smolvlm"])


def test_an_answer_ends_with_its_turn() -> None:
    reply = {
        "num_prompt_tokens": 22,
        "token_ids": [4, 5, 9, 9],
        "steps": [[[4, -0.1], [7, -3.0]], [[5, -0.2]], [[9, -0.3]], [[9, -0.3]]],
    }
    answer = answer_from(reply, end_of_turn=9)
    assert (answer.num_prompt_tokens, answer.token_ids) == (22, (4, 5))
    assert answer.top_logprobs == ({4: -0.1, 7: -3.0}, {5: -0.2})


@pytest.mark.parametrize("missing", ["node", "@huggingface/transformers"])
def test_where_it_is_not_here_the_proof_says_so(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.chdir(tmp_path)
    place = None if missing == "node" else "/bin/false"
    monkeypatch.setattr(transformers_js.shutil, "which", lambda _: place)
    monkeypatch.setattr(transformers_js, "_VERSION", "throw new Error('nothing here')")
    if missing == "node":
        assert installed_version() is None
    else:
        monkeypatch.setattr(transformers_js, "installed_version", lambda: None)
    proof = prove_browser(exported, tmp_path, staged=exported.folder)
    assert proof.holds is None
    assert proof.not_run is not None
    assert f"{missing} is not here (npm install @huggingface/transformers" in proof.not_run


def test_transformers_js_answers_as_transformers(exported: Exported, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the extra `export` is not installed")
    if installed_version() is None:
        pytest.skip("node does not find @huggingface/transformers from here")
    proof = export_onnx(exported, tmp_path / "out", form="browser", proves=True)
    assert proof.holds, proof_text(proof)
    record = json.loads((tmp_path / "out" / "proof.json").read_text())
    assert record["runtime"].startswith("transformers.js ")
    for prompt in record["prompts"]:
        assert prompt["prompt_tokens"] == prompt["runtime_prompt_tokens"]
