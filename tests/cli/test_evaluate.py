"""`smolvlm eval`: a run, a checkpoint or a bare model, scored; numbers as JSON lines or as a
table."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from smolvlm.build import assemble
from smolvlm.cli.evaluate import show_differences
from smolvlm.eval.comparison import Difference
from smolvlm.eval.intervals import Interval
from tests.cli.test_interruption import process, wait_until
from tests.processes import HAS_PROC
from tests.train.forking import free_port


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


def test_the_base_answers_beside_the_trained_model(
    evaluated: Any, out: Path, settings: dict[str, Any], smolvlm_command: Any, json_rows: Any,
    tmp_path: Path,
) -> None:  # fmt: skip
    said = tmp_path / "said.jsonl"
    outcome = smolvlm_command("eval", out, "--base", "--json", "--predictions", said)
    assert outcome.status == 0, outcome.messages
    base = settings["model"]["path"]
    assert f"beside: {base}" in " ".join(outcome.messages.split())
    alone = smolvlm_command(
        "eval", out / "run.yaml", "--json", "--predictions", tmp_path / "base.jsonl"
    )
    assert f"scored: {base}" in " ".join(alone.messages.split())
    for metric, own, of_base in zip(outcome.objects, evaluated.objects, alone.objects, strict=True):
        assert {name: metric[name] for name in own} == own
        assert metric["base_value"] == pytest.approx(of_base["value"])
        assert metric["difference"] == pytest.approx(own["value"] - of_base["value"])
        assert metric["difference_low"] <= metric["difference"] <= metric["difference_high"]
    rows, of_base = json_rows(said), json_rows(tmp_path / "base.jsonl")
    assert [row["base_prediction"] for row in rows] == [row["prediction"] for row in of_base]
    assert [row["base_key"] for row in rows] == [row["key"] for row in of_base]
    again = smolvlm_command("eval", out, "--base", "--predictions", said)
    assert "12 answers were there already" in again.messages
    assert json_rows(said) == rows
    assert "difference" in again.messages
    assert "worse than the base" not in again.messages


def test_what_is_worse_than_the_base_is_said_a_source_at_a_time(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def difference(name: str, source: str, low: float, high: float) -> Difference:
        interval = Interval(low=low, high=high, method="bootstrap")
        return Difference(
            name=name, source=source, num_rows=9, base=0.5, value=0.5, interval=interval
        )

    show_differences(
        [
            difference("exact_match", "all", -0.2, 0.1),
            difference("exact_match", "general", -0.3, -0.1),
            difference("loss", "general", 0.2, 0.4),
            difference("loss", "mine", -0.4, -0.2),
        ]
    )
    said = capsys.readouterr().err
    assert said.count("worse than the base") == 1
    assert "worse than the base on general, beyond the 95 % interval: exact_match, loss\n" in said


def test_a_checkpoint_of_unknown_origin_has_no_base(
    settings: dict[str, Any], sources: list[dict[str, Any]], smolvlm_command: Any, tmp_path: Path
) -> None:
    (tmp_path / "held-out.yaml").write_text(yaml.safe_dump(sources))
    model = settings["model"]["path"]
    outcome = smolvlm_command("eval", model, "--base", "--mixture", tmp_path / "held-out.yaml")
    assert outcome.status == 1
    assert "so there is no base to compare with" in outcome.messages


def test_metrics_are_chosen_by_source_and_by_setting(
    settings: dict[str, Any], sources: list[dict[str, Any]], smolvlm_command: Any, tmp_path: Path
) -> None:
    mixture = tmp_path / "held-out.yaml"
    mixture.write_text(yaml.safe_dump([sources[0] | {"metric": ["anls", "bleu"]}, sources[1]]))
    model = settings["model"]["path"]
    outcome = smolvlm_command(
        "eval", model, "--mixture", mixture, "--json", "eval.metric=relaxed_accuracy", *SETTINGS
    )
    assert outcome.status == 0, outcome.messages
    assert [(one["source"], one["name"], one.get("interval")) for one in outcome.objects] == [
        ("all", "token_accuracy", "bootstrap"),
        ("all", "loss", "bootstrap"),
        ("photos", "anls", "bootstrap"),
        ("photos", "bleu", "bootstrap"),
        ("photos", "token_accuracy", "bootstrap"),
        ("photos", "loss", "bootstrap"),
        ("words", "relaxed_accuracy", "wilson"),
        ("words", "token_accuracy", "bootstrap"),
        ("words", "loss", "bootstrap"),
    ]
    refused = smolvlm_command("eval", model, "--mixture", mixture, "eval.metric=anl", *SETTINGS)
    assert refused.status == 1
    assert "eval.metric = 'anl'" in refused.messages
    assert "did you mean `anls`?" in refused.messages


@pytest.mark.skipif(not HAS_PROC, reason="the process is started as the others that are killed")
def test_two_processes_share_the_rows_and_one_of_them_tells(
    evaluated: Any, out: Path, tmp_path: Path, json_rows: Any
) -> None:
    """What the second kept when all were stopped is read by any number of processes."""
    said = tmp_path / "said.jsonl"
    rows = json_rows(out.parent / "again.jsonl")
    kept = [json.dumps({"key": row["key"], "prediction": row["prediction"]}) for row in rows]
    (tmp_path / "said.jsonl.partial.1").write_text("\n".join(kept) + "\n")
    done = subprocess.run(
        (
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"),
            *("--master-addr", "127.0.0.1", "--master-port", str(free_port())),
            *("-m", "smolvlm", "eval", str(out), "--json", "--predictions", str(said)),
        ),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    metrics = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(metrics) == len(evaluated.objects), "the other one prints nothing"
    for metric, alone in zip(metrics, evaluated.objects, strict=True):
        assert metric["value"] == pytest.approx(alone["value"], rel=1e-5)
    answers = [(row["where"], row["prediction"]) for row in json_rows(said)]
    assert answers == [(row["where"], row["prediction"]) for row in rows]
    assert f"{len(rows)} answers were there already" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["said.jsonl", "said.parquet"]


def test_an_evaluation_that_is_killed_goes_on_where_it_was(
    settings: dict[str, Any], smolvlm_command: Any, tmp_path: Path, json_rows: Any
) -> None:
    """Killed for good once some batches are answered, and given again: as if never stopped."""
    rows = [{"question": f"What is {n} plus {n * n}? " + "Well? " * (n % 7), "answer": "x"}
            for n in range(60)]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "held-out.yaml").write_text(yaml.safe_dump([{"json_path": "rows.jsonl"}]))
    few = ("eval.batch_size=2", "eval.max_new_tokens=64")
    arguments = [
        "eval", settings["model"]["path"], "--mixture", tmp_path / "held-out.yaml", *few,
        "--predictions",
    ]  # fmt: skip
    said = tmp_path / "said.jsonl"
    partial = tmp_path / "said.jsonl.partial"
    with process(*arguments, said, cwd=tmp_path) as (running, log):
        wait_until(
            lambda: partial.is_file() and partial.read_bytes().count(b"\n") > 5, running, log
        )
        running.kill()
        running.wait()
    num_kept = partial.read_bytes().count(b"\n")
    assert 5 < num_kept < len(rows)
    assert not said.exists()
    with partial.open("ab") as file:
        file.write(b'{"key": "cut sho')
    resumed = smolvlm_command(*arguments, said)
    assert resumed.status == 0, resumed.messages
    assert f"{num_kept - num_kept % 2} answers were there already" in resumed.messages
    assert not partial.exists()
    never_stopped = smolvlm_command(*arguments, tmp_path / "other.jsonl")
    assert never_stopped.status == 0
    assert said.read_bytes() == (tmp_path / "other.jsonl").read_bytes()
    twins = [pq.read_table(tmp_path / name) for name in ("said.parquet", "other.parquet")]
    assert twins[0].equals(twins[1])
    assert len(json_rows(said)) == len(rows)
