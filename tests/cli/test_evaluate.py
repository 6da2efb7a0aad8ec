"""`smolvlm eval`: a run, a checkpoint or a bare model, scored; numbers as JSON lines or as a
table."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from smolvlm.build import assemble


@pytest.fixture(scope="module")
def evaluated(out: Path, smolvlm_command: Any) -> Any:
    return smolvlm_command("eval", out, "--json", "--predictions", out.parent / "again.jsonl")


def test_json_lines_are_metrics_and_nothing_else(evaluated: Any) -> None:
    assert evaluated.status == 0
    assert all(
        metric.keys()
        == {
            *("name", "value", "num_rows", "source", "checkpoint", "base", "adapter"),
            *("low", "high", "interval"),
        }
        for metric in evaluated.objects
    )
    assert {
        (metric["name"], metric["source"], metric["num_rows"]) for metric in evaluated.objects
    } == {
        (name, source, 6 if source == "all" else 3)
        for name in ("exact_match", "vqa_accuracy", "token_accuracy", "loss")
        for source in ("all", "photos", "words")
    }


def test_a_run_folder_scores_as_the_run_did_at_its_end(
    evaluated: Any, out: Path, json_rows: Any
) -> None:
    logged = json_rows(out / "metrics.jsonl")[-1]
    for metric in evaluated.objects:
        suffix = "" if metric["source"] == "all" else f"_{metric['source']}"
        assert metric["value"] == pytest.approx(logged[f"eval_{metric['name']}{suffix}"], rel=1e-6)
    again, before = (
        json_rows(folder / name)
        for folder, name in ((out.parent, "again.jsonl"), (out, "predictions.jsonl"))
    )
    for one, other in zip(again, before, strict=True):
        assert one | {"key": None} == other | {"loss": pytest.approx(other["loss"], rel=1e-5)}
    tables = [
        pq.read_table(path) for path in (out.parent / "again.parquet", out / "predictions.parquet")
    ]
    assert [table.num_rows for table in tables] == [len(again)] * 2


def test_a_checkpoint_within_a_run_is_another_model(
    evaluated: Any, out: Path, smolvlm_command: Any
) -> None:
    outcome = smolvlm_command("eval", out / "checkpoint-3", "eval.max_new_tokens=1", "--json")
    assert outcome.status == 0
    losses = [
        next(own for own in found.objects if own["name"] == "loss")
        for found in (evaluated, outcome)
    ]
    assert losses[1]["value"] != losses[0]["value"]
    assert losses[1]["checkpoint"] == str(out / "checkpoint-3")
    assert losses[0]["checkpoint"] == str(out)


def test_the_model_that_answered_is_named(
    evaluated: Any, out: Path, settings: dict[str, Any]
) -> None:
    base = settings["model"]["path"]
    assert f"scored: {out} (from {base})" in " ".join(evaluated.messages.split())
    for metric in evaluated.objects:
        assert (metric["checkpoint"], metric["base"], metric["adapter"]) == (str(out), base, None)


def test_an_adapter_is_named_with_its_base(
    run_file: Path, settings: dict[str, Any], smolvlm_command: Any, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    folder, base = tmp_path / "adapted", settings["model"]["path"]
    few = [f"train.output_dir={folder}", "adapters.language=lora", "train.max_steps=1"]
    trained = smolvlm_command("train", run_file, *few, "eval.at_start=false")
    assert trained.status == 0, trained.messages
    outcome = smolvlm_command("eval", folder, "--json", "eval.max_new_tokens=1")
    assert f"scored: adapter {folder} on base {base}" in " ".join(outcome.messages.split())
    assert all(
        (metric["checkpoint"], metric["base"], metric["adapter"])
        == (str(folder), base, str(folder))
        for metric in outcome.objects
    )


SETTINGS = ("eval.max_new_tokens=1", "data.allow_outside_root=true")


def test_a_bare_model_needs_a_mixture_and_then_takes_every_row(
    settings: dict[str, Any], sources: list[dict[str, Any]], smolvlm_command: Any, tmp_path: Path
) -> None:
    model = settings["model"]["path"]
    refused = smolvlm_command("eval", model)
    assert refused.status == 1
    assert "or --mixture FILE with a checkpoint" in refused.messages
    (tmp_path / "held-out.yaml").write_text(yaml.safe_dump(sources))
    outcome = smolvlm_command("eval", model, "--mixture", tmp_path / "held-out.yaml", *SETTINGS)
    assert outcome.status == 0
    assert outcome.output == "", "the table is for people"
    assert f"scored: {model}\n" in outcome.messages
    assert "photos" in outcome.messages
    assert "exact_match" in outcome.messages


def test_the_embedded_model_is_assembled_as_for_a_run(
    settings: dict[str, Any],
    sources: list[dict[str, Any]],
    smolvlm_command: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assemble, "assemble_base_model", lambda _: Path(settings["model"]["path"]))
    (tmp_path / "held-out.yaml").write_text(yaml.safe_dump(sources))
    outcome = smolvlm_command(
        "eval", "embedded", "--mixture", tmp_path / "held-out.yaml", *SETTINGS
    )
    assert outcome.status == 0, outcome.messages


def test_references_of_a_row_are_all_accepted(
    settings: dict[str, Any], smolvlm_command: Any, tmp_path: Path, json_rows: Any
) -> None:
    rows = [{"question": "Is it?", "answers": ["yes", "yep"]}]
    (tmp_path / "rows.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "held-out.yaml").write_text(yaml.safe_dump([{"json_path": "rows.jsonl"}]))
    mixture, predictions = tmp_path / "held-out.yaml", tmp_path / "said.jsonl"
    arguments = [
        "--mixture",
        mixture,
        "--predictions",
        predictions,
        "--json",
        "eval.max_new_tokens=1",
    ]
    assert smolvlm_command("eval", settings["model"]["path"], *arguments).status == 0
    assert json_rows(predictions)[0]["references"] == ["yes", "yep"]
