"""`smolvlm train` with adapters, `smolvlm eval` of what it left, and `smolvlm export`."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForImageTextToText, AutoProcessor


@pytest.fixture(scope="module")
def adapted(
    settings: dict[str, Any], smolvlm_command: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The output folder of a run with an adapter; not to be written to."""
    folder = tmp_path_factory.mktemp("adapted")
    train = settings["train"] | {
        "output_dir": str(folder / "out"),
        "num_train_epochs": 1,
        "save_steps": 1,
    }
    adapters = {"language": {"type": "lora", "r": 4, "lr": 1e-2}}
    (folder / "run.yaml").write_text(
        yaml.safe_dump(settings | {"train": train, "adapters": adapters})
    )
    outcome = smolvlm_command("train", folder / "run.yaml")
    assert outcome.status == 0, outcome.messages
    assert "language_model  lora of rank 4 in 14 layers" in outcome.messages
    return folder / "out"


def metrics(outcome: Any) -> dict[tuple[str, str], float]:
    assert outcome.status == 0, outcome.messages
    return {(metric["source"], metric["name"]): metric["value"] for metric in outcome.objects}


def test_an_adapters_folder_scores_as_the_run_did_at_its_end(
    adapted: Path, smolvlm_command: Any, json_rows: Any
) -> None:
    found = metrics(smolvlm_command("eval", adapted, "--json"))
    logged = json_rows(adapted / "metrics.jsonl")[-1]
    assert found["all", "loss"] == pytest.approx(logged["eval_loss"], rel=1e-6)
    earlier = metrics(
        smolvlm_command("eval", adapted / "checkpoint-1", "eval.max_new_tokens=1", "--json")
    )
    assert earlier["all", "loss"] != found["all", "loss"]


def test_the_merged_model_scores_the_same(
    adapted: Path, smolvlm_command: Any, sources: list[dict[str, Any]], tmp_path: Path
) -> None:
    outcome = smolvlm_command(
        "export", adapted, "--to", "transformers", "--out", tmp_path / "merged", "--merge"
    )
    assert outcome.status == 0, outcome.messages
    assert f"{tmp_path / 'merged'}: " in outcome.messages
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "merged")
    assert type(model).__module__.startswith("transformers.")
    assert (
        AutoProcessor.from_pretrained(tmp_path / "merged").image_processor.size["longest_edge"]
        == 64
    )
    (tmp_path / "held-out.yaml").write_text(yaml.safe_dump(sources))
    wanted = (
        "--json",
        "--mixture",
        tmp_path / "held-out.yaml",
        "data.allow_outside_root=true",
        "eval.max_new_tokens=1",
    )
    merged = metrics(smolvlm_command("eval", tmp_path / "merged", *wanted))
    apart = metrics(
        smolvlm_command("eval", adapted, *wanted[:3], "eval.max_new_tokens=1", "eval.max_rows=100")
    )
    assert merged["all", "loss"] == pytest.approx(apart["all", "loss"], rel=1e-5)


def test_without_merge_the_adapter_is_copied(
    adapted: Path, smolvlm_command: Any, tmp_path: Path
) -> None:
    outcome = smolvlm_command("export", adapted, "--to", "transformers", "--out", tmp_path / "copy")
    assert outcome.status == 0, outcome.messages
    assert (tmp_path / "copy" / "adapter_config.json").is_file()
    assert not (tmp_path / "copy" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "gguf", "--merge"], "--merge: has no effect with --to gguf"),
        (["--to", "gguf", "--dtype", "q4_k"], "give one of f16, f32, q8_0"),
        (["--to", "transformers", "--dtype", "f16"], "--dtype f16: has no effect with --to"),
        (["--to", "transformers", "--no-proof"], "--no-proof: has no effect with --to"),
    ],
)
def test_what_makes_no_sense_together_says_so(
    smolvlm_command: Any, tmp_path: Path, arguments: list[str], message: str
) -> None:
    outcome = smolvlm_command("export", tmp_path, *arguments, "--out", tmp_path / "out")
    assert outcome.status == 1
    assert message in outcome.messages


def test_a_folder_without_a_checkpoint_is_named(
    smolvlm_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smolvlm.export.packages.check_packages", lambda *_, **__: None)
    outcome = smolvlm_command("export", tmp_path, "--to", "gguf", "--out", tmp_path / "out")
    assert outcome.status == 1
    assert "neither config.json nor adapter_config.json here" in outcome.messages


def test_an_unknown_form_is_wrong_usage(smolvlm_command: Any, tmp_path: Path) -> None:
    outcome = smolvlm_command("export", tmp_path, "--to", "zip", "--out", tmp_path / "out")
    assert outcome.status == 2


@pytest.mark.parametrize(("bound", "status"), [(0.03, 0), (0.0, 3)])
def test_an_adapters_files_answer_and_drift_is_exit_status_3(
    adapted: Path,
    smolvlm_command: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    bound: float,
    status: int,
) -> None:
    pytest.importorskip("sentencepiece", reason="the extra `export` is not installed")
    pytest.importorskip("xllamacpp", reason="the extra `export` is not installed")
    monkeypatch.setattr("smolvlm.export.gguf.BOUNDS", {"f32": bound})
    outcome = smolvlm_command(
        *("export", adapted, "--to", "gguf", "--dtype", "f32", "--out", tmp_path / "out")
    )
    assert outcome.status == status, outcome.messages
    word = "answers as transformers does" if status == 0 else "DRIFTS from transformers"
    assert word in outcome.messages
    assert (tmp_path / "out" / "model-f32.gguf").is_file()
    record = json.loads((tmp_path / "out" / "proof.json").read_text())
    assert record["holds"] is (status == 0)
