"""GGUF files answer as transformers does, drift is seen, and what cannot be shown is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from smolvlm.checkpoints.processor_files import save_processor
from smolvlm.datasets.encoding.prompts import read_prompt_settings
from smolvlm.errors import ConfigError
from smolvlm.export.exported import Exported, read_exported
from smolvlm.export.gguf import check_gguf, export_gguf, prove_gguf
from smolvlm.export.merge import export_for_transformers
from smolvlm.export.proof import proof_text
from smolvlm.export.staged import stage, template_of
from smolvlm.terminal import say
from tests.export.conftest import set_pictures


@pytest.fixture(scope="module")
def runtime() -> None:
    """The optional packages; their absence skips a test."""
    pytest.importorskip("sentencepiece", reason="the extra `export` is not installed")
    pytest.importorskip("xllamacpp", reason="the extra `export` is not installed")


@pytest.fixture(scope="module")
def exported(checkpoint_folders: Any) -> Exported:
    return read_exported(checkpoint_folders["smolvlm"])


@pytest.fixture(scope="module")
def files(
    runtime: None, exported: Exported, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A tiny model's export in float32, its stock folder, and one of the stock template."""
    out = tmp_path_factory.mktemp("gguf")
    proof = export_gguf(exported, out / "export", dtype="f32", proves=True)
    assert proof.holds, proof
    (out / "staged").mkdir()
    stage(exported, out / "staged", template=template_of(exported.base.processor))
    return {"export": out / "export", "staged": out / "staged"}


def test_llama_cpp_answers_as_transformers(files: dict[str, Path]) -> None:
    record = json.loads((files["export"] / "proof.json").read_text())
    assert record["holds"] is True
    assert record["runtime"].startswith("xllamacpp ")
    for prompt in record["prompts"]:
        assert prompt["prompt_tokens"] == prompt["runtime_prompt_tokens"]
        assert prompt["max_logprob_difference"] < record["bound"] == 0.03
        assert prompt["steps_compared"] > 2
        assert (files["export"] / prompt["picture"]).is_file()
    names = {path.name for path in files["export"].iterdir()}
    assert names == {"model-f32.gguf", "mmproj-f32.gguf", "proof.json", "proof"}


@pytest.mark.parametrize(
    ("file", "tensor"), [("model", "blk.1.ffn_down.weight"), ("mmproj", "mm.model.fc.weight")]
)
def test_a_changed_weight_is_seen(
    files: dict[str, Path], exported: Exported, tmp_path: Path, file: str, tensor: str
) -> None:
    drifted = shutil.copytree(files["export"], tmp_path / "drifted")
    reader = GGUFReader(drifted / f"{file}-f32.gguf", "r+")
    data = next(each.data for each in reader.tensors if each.name == tensor)
    data *= 1.5
    data.flush()
    proof = prove(drifted, exported, files["staged"])
    assert proof.holds is False
    assert max(each.max_logprob_difference for each in proof.comparisons) > proof.bound


def test_an_unmended_template_is_seen(
    files: dict[str, Path], exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolvlm.export.gguf.mended_template", lambda template: template)
    proof = export_gguf(exported, tmp_path / "out", dtype="f32", proves=True)
    assert proof.holds is False
    more = [
        each.answer.num_prompt_tokens - each.reference.num_prompt_tokens
        for each in proof.comparisons
    ]
    assert more == [1, 1, 0]  # "User: " where the picture comes first


def prove(folder: Path, exported: Exported, staged: Path) -> Any:
    text_file, mmproj_file = folder / "model-f32.gguf", folder / "mmproj-f32.gguf"
    return prove_gguf(exported, text_file, mmproj_file, staged=staged, dtype="f32")


def test_without_a_proof_the_record_says_so(
    runtime: None, exported: Exported, tmp_path: Path
) -> None:
    proof = export_gguf(exported, tmp_path / "out", dtype="q8_0", proves=False)
    assert proof.holds is None
    record = json.loads((tmp_path / "out" / "proof.json").read_text())
    assert (record["holds"], record["not_run"]) == (None, "--no-proof was given")
    assert (tmp_path / "out" / "model-q8_0.gguf").is_file()


def test_one_tile_and_its_overview_are_what_llama_cpp_shows(
    runtime: None, exported: Exported, tmp_path: Path
) -> None:
    media = read_prompt_settings(exported.base.processor, image_splitting="overview").media
    folder = tmp_path / "overview"
    export_for_transformers(exported.folder, folder, merge=False)
    save_processor(str(exported.folder), folder, media=media)
    proof = export_gguf(read_exported(folder), tmp_path / "out", dtype="f32", proves=True)
    assert proof.holds, proof_text(proof)
    for each in proof.comparisons:
        assert each.reference.num_prompt_tokens == each.answer.num_prompt_tokens


@pytest.mark.parametrize("longest_edge", [32, 128])
def test_one_tile_a_picture_would_drift(
    runtime: None,
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    longest_edge: int,
) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "unsplit")
    set_pictures(folder, do_image_splitting=False, size={"longest_edge": longest_edge})
    monkeypatch.setattr("smolvlm.export.gguf._check_pictures", lambda _: None)
    proof = export_gguf(read_exported(folder), tmp_path / "out", dtype="f32", proves=True)
    say(proof_text(proof))  # the table of docs/exporting.md: pytest -s
    assert proof.holds is False


def refusal(exported: Exported) -> str:
    with pytest.raises(ConfigError) as error:
        check_gguf(exported, proves=True)
    return str(error.value)


def test_one_tile_a_picture_is_refused(exported: Exported, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "unsplit")
    set_pictures(folder, do_image_splitting=False)
    assert "14 tokens in place of 7" in refusal(read_exported(folder))
    assert "data.image_splitting: overview" in refusal(read_exported(folder))
    set_pictures(folder, do_image_splitting=True, size={"longest_edge": 32})
    assert "14 tokens in place of 7" in refusal(read_exported(folder))


def test_other_language_models_and_averaged_frames_are_refused(exported: Exported) -> None:
    assert "averaged 4 frames" in refusal(replace(exported, average_frames=4))
    config = exported.base.config.__class__.from_dict(exported.base.config.to_dict())
    config.text_config.model_type = "qwen3"
    base = replace(exported.base, config=config)
    assert "this one's is of type qwen3" in refusal(replace(exported, base=base))
    config = exported.base.config.__class__.from_dict(exported.base.config.to_dict())
    config.text_config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0}
    base = replace(exported.base, config=config)
    assert "no rotary scaling of type dynamic" in refusal(replace(exported, base=base))


def test_missing_packages_are_named_before_any_work(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolvlm.export.packages.find_spec", lambda _: None)
    with pytest.raises(ConfigError) as error:
        export_gguf(exported, tmp_path / "out", dtype="f16", proves=True)
    text = str(error.value)
    assert "--to gguf: sentencepiece and xllamacpp are not installed" in text
    assert 'pip install "smolvlm[export]"' in text
    with pytest.raises(ConfigError, match="--to gguf: sentencepiece is not installed"):
        export_gguf(exported, tmp_path / "out", dtype="f16", proves=False)
    assert not (tmp_path / "out").exists()
