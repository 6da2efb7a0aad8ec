"""`smolvlm train`: a run with its evaluations and its report, and errors that need no traceback."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import smolvlm.runs.evaluation
import smolvlm.runs.live_report
import smolvlm.train.arguments
import smolvlm.train.train
from smolvlm.generate.answers import GenerationSettings
from smolvlm.report.report import write_run_report

SCORES = ("exact_match", "vqa_accuracy", "token_accuracy", "loss")
EVAL_KEYS = {
    f"eval_{score}{source}{end}"
    for score in SCORES
    for source in ("", "_photos", "_words")
    for end in ("", "_ci95_low", "_ci95_high")
}


def test_it_trains_evaluates_and_reports(trained: Any, out: Path, json_rows: Any) -> None:
    assert trained.status == 0
    assert trained.output == ""
    assert "16 rows, " in trained.messages
    assert "language_model           0.001" in trained.messages
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    predictions = json_rows(out / "predictions.jsonl")
    assert [row["source"] for row in predictions] == ["photos"] * 3 + ["words"] * 3, (
        "eval.max_rows of each source"
    )
    assert [row["where"].rsplit(":")[-1] for row in predictions] == ["1", "2", "3"] * 2
    before = json_rows(out / "predictions-before.jsonl")
    assert [row["where"] for row in before] == [row["where"] for row in predictions]
    assert [row["prediction"] for row in before] != [row["prediction"] for row in predictions]


def test_evaluations_amid_training_stand_between_its_lines(out: Path, json_rows: Any) -> None:
    lines = json_rows(out / "metrics.jsonl")
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))
    evaluations = [line for line in lines if "loss" not in line]
    assert all(line.keys() == EVAL_KEYS | {"step", "epoch"} for line in evaluations)
    half = len(steps) // 2
    found = [(line["step"], line["epoch"]) for line in evaluations]
    assert found == [(0, 0), (half, 1.0), (len(steps), 2.0)], "and not once more when all is done"
    losses = [line["eval_loss"] for line in evaluations]
    assert losses == sorted(losses, reverse=True)


def test_the_first_line_is_what_the_untrained_model_scored(out: Path, json_rows: Any) -> None:
    first = json_rows(out / "metrics.jsonl")[0]
    before = json_rows(out / "predictions-before.jsonl")
    assert first["step"] == 0
    tokens = sum(row["num_tokens"] for row in before)
    loss = sum(row["loss"] * row["num_tokens"] for row in before) / tokens
    assert first["eval_loss"] == pytest.approx(loss)
    matches = [row["scores"]["exact_match"] for row in before]
    assert first["eval_exact_match"] == pytest.approx(sum(matches) / len(matches))


def test_each_evaluation_is_a_line_in_the_terminal(trained: Any, json_rows: Any, out: Path) -> None:
    last = [line for line in json_rows(out / "metrics.jsonl") if "eval_loss" in line][-1]
    assert trained.messages.count("eval at step ") == 2
    assert (
        f"eval at step {last['step']}: exact_match {last['eval_exact_match']:.4f} "
        f"({last['eval_exact_match_ci95_low']:.4f} to "
    ) in trained.messages
    assert f"loss {last['eval_loss']:.4f}" in trained.messages
    assert "worse than" not in trained.messages


def test_the_same_questions_are_kept_evaluation_after_evaluation(out: Path, json_rows: Any) -> None:
    lines = json_rows(out / "answers.jsonl")
    assert [line["step"] for line in lines] == [0, 2, 4]
    asked = [[row["question"] for row in line["answers"]] for line in lines]
    assert asked[0] == asked[1] == asked[2]
    last = {row["where"]: row["prediction"] for row in json_rows(out / "predictions.jsonl")}
    assert {row["where"]: row["prediction"] for row in lines[-1]["answers"]} == last
    assert "<h2>The same questions over time</h2>" in (out / "report.html").read_text()


def test_a_resumed_run_writes_those_that_it_does_again_once(
    run_file: Path, out: Path, smolvlm_command: Any, json_rows: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(out, folder)
    shutil.rmtree(folder / "checkpoint-4")
    again = smolvlm_command("train", run_file, f"train.output_dir={folder}")
    assert again.status == 0, again.messages
    assert f"resuming from {folder}/checkpoint-3" in again.messages
    assert again.messages.count("eval at step ") == 1
    assert (folder / "answers.jsonl").read_text() == (out / "answers.jsonl").read_text()
    first = [line for line in json_rows(folder / "metrics.jsonl") if "eval_loss" in line]
    assert [line["step"] for line in first] == [0, 2, 4]


def test_what_got_worse_is_said_in_the_terminal_and_on_the_page(
    run_file: Path, smolvlm_command: Any, tmp_path: Path
) -> None:
    ruinous = ["train.language_model_lr=1", "train.max_steps=3", "train.eval_strategy=no"]
    ruinous.append("train.lr_scheduler_type=constant")
    few = ["eval.max_new_tokens=1", f"train.output_dir={tmp_path}"]
    outcome = smolvlm_command("train", run_file, *ruinous, *few)
    assert outcome.status == 0, outcome.messages
    assert "worse than before training, at step 3: loss " in outcome.messages
    assert "worse than before training on words, at step 3: loss " in outcome.messages
    page = (tmp_path / "report.html").read_text()
    assert '<aside class="alarm"' in page
    assert "words: loss " in page


def test_without_held_out_rows_nothing_is_evaluated(
    run_file: Path, smolvlm_command: Any, tmp_path: Path
) -> None:
    outcome = smolvlm_command(
        "train",
        run_file,
        f"train.output_dir={tmp_path}",
        "data.eval_mixture=null",
        "train.eval_strategy=no",
        "train.max_steps=1",
    )
    assert outcome.status == 0, outcome.messages
    assert "eval at step" not in outcome.messages
    assert not list(tmp_path.glob("predictions*"))
    assert "eval_loss" not in (tmp_path / "metrics.jsonl").read_text()


def test_answers_of_an_earlier_run_in_the_folder_are_not_taken_for_this_ones(
    run_file: Path, smolvlm_command: Any, tmp_path: Path
) -> None:
    (tmp_path / "predictions-before.jsonl").write_text("of another model\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "eval_loss": 9.0}\n')
    short = ["train.max_steps=1", "train.eval_strategy=no", "eval.at_end=false"]
    outcome = smolvlm_command(
        "train", run_file, *short, "eval.at_start=false", f"train.output_dir={tmp_path}"
    )
    assert outcome.status == 0, outcome.messages
    assert not (tmp_path / "predictions-before.jsonl").exists()
    assert "eval_loss" not in (tmp_path / "metrics.jsonl").read_text()


def test_evaluation_every_so_many_steps_and_anew_where_nothing_is_resumed(
    run_file: Path, smolvlm_command: Any, json_rows: Any, tmp_path: Path
) -> None:
    often = [
        "train.eval_strategy=steps",
        "train.eval_steps=2",
        "eval.max_new_tokens=1",
        "eval.at_end=false",
    ]
    fresh = [
        "train.num_train_epochs=1",
        "train.save_strategy=no",
        "train.resume_from_checkpoint=false",
    ]
    (tmp_path / "predictions-before.jsonl").write_text("of another model\n")
    assert (
        smolvlm_command("train", run_file, *often, *fresh, f"train.output_dir={tmp_path}").status
        == 0
    )
    assert len(json_rows(tmp_path / "predictions-before.jsonl")) == 6
    assert not (tmp_path / "predictions.jsonl").exists()
    lines = json_rows(tmp_path / "metrics.jsonl")
    steps = max(line["step"] for line in lines)
    assert [line["step"] for line in lines if "eval_loss" in line] == sorted(
        {*range(0, steps + 1, 2), steps}
    )


def test_the_untrained_model_is_evaluated_once_however_often_the_command_is_given(
    run_file: Path, out: Path, smolvlm_command: Any
) -> None:
    before = (out / "predictions-before.jsonl").stat().st_mtime_ns
    again = smolvlm_command("train", run_file)
    assert again.status == 0
    assert f"resuming from {out}/checkpoint-" in again.messages
    assert "step 1/" not in again.messages
    assert (out / "predictions-before.jsonl").stat().st_mtime_ns == before


def test_a_run_that_a_gpu_began_in_bfloat16_is_resumed_on_a_cpu(
    run_file: Path, smolvlm_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU is a CPU that chooses as one would; training and its evaluations then compute in
    bfloat16."""
    evaluated_in: list[torch.dtype] = []

    def noted(**settings: Any) -> GenerationSettings:
        evaluated_in.append(settings["compute_dtype"])
        return GenerationSettings(**settings)

    monkeypatch.setattr(smolvlm.runs.evaluation, "GenerationSettings", noted)
    run = [
        "train",
        run_file,
        f"train.output_dir={tmp_path}",
        "eval.max_new_tokens=1",
        "eval.at_start=false",
    ]
    with monkeypatch.context() as gpu:
        for module in (smolvlm.train.arguments, smolvlm.train.train):
            gpu.setattr(module, "is_bf16_default", lambda _: True)
        begun = smolvlm_command(*run)
    assert begun.status == 0, begun.messages
    assert "float32 weights, bfloat16 autocast; " in begun.messages
    assert "bf16" not in (tmp_path / "run.yaml").read_text(), "another device decides for itself"
    last = max(tmp_path.glob("checkpoint-*"), key=lambda folder: int(folder.name.rsplit("-", 1)[1]))
    shutil.rmtree(last)
    resumed = smolvlm_command(*run)
    assert resumed.status == 0, resumed.messages
    assert "resuming from " in resumed.messages
    assert (
        "note: the run computed in bfloat16 on cpu and goes on in float32 on cpu; train.bf16=true "
        "keeps the former "
        "precision\n"
    ) in resumed.messages
    newest = json.loads((tmp_path / "run.json").read_text())
    found = [start["kernels"]["autocast_dtype"] for start in (*newest["earlier"], newest)]
    assert found == ["bfloat16", None]
    assert "autocast dtype bfloat16" in (tmp_path / "report.html").read_text()
    assert smolvlm_command("eval", tmp_path, "eval.max_new_tokens=1").status == 0
    assert evaluated_in == [torch.bfloat16, torch.float32, torch.float32]


def test_a_bad_run_file_lists_every_problem(smolvlm_command: Any, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "model: {pth: x}\ndata: {mixture: [], max_tokens_per_pack: none}\n"
        "train: {output_dir: out, learning_rate: 1.0e-4, save_stepz: 3}\n"
    )
    outcome = smolvlm_command("train", tmp_path / "run.yaml", "train.language_model_lr=fast")
    assert outcome.status == 1
    assert outcome.output == ""
    assert outcome.messages.startswith(f"error: {tmp_path / 'run.yaml'}: 6 problems:")
    for expected in (
        "model.pth",
        "model.path",
        "data.max_tokens_per_pack",
        "train.learning_rate",
        "did you mean train.save_steps?",
        "train.language_model_lr",
    ):
        assert expected in outcome.messages
    assert "Traceback" not in outcome.messages


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["data.mixture=[]"], "the mixture has no sources"),
        (["data.eval_mixture=[]"], "the mixture has no sources"),
        (["model.path=./nowhere"], "no such folder"),
        (["data.max_tokens_per_pack=8"], "tokens, a pack holds data.max_tokens_per_pack=8"),
    ],
)
def test_what_cannot_be_trained_is_an_error_before_the_first_step(
    run_file: Path, smolvlm_command: Any, tmp_path: Path, overrides: list[str], expected: str
) -> None:
    outcome = smolvlm_command("train", run_file, f"train.output_dir={tmp_path}", *overrides)
    assert outcome.status == 1
    assert expected in outcome.messages
    assert "Traceback" not in outcome.messages
    assert not (tmp_path / "metrics.jsonl").exists()


def test_corrupt_pixels_amid_the_run_are_an_error_that_names_the_row(
    settings: dict[str, dict[str, Any]],
    rows_folder: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    write_yaml: Any,
    smolvlm_command: Any,
) -> None:
    whole = photos["coffee"].read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    rows = (
        (rows_folder / "photos.jsonl")
        .read_text()
        .replace(str(photos["coffee"]), str(tmp_path / "cut.png"))
    )
    (tmp_path / "photos.jsonl").write_text(rows)
    data = {
        "mixture": [{"json_path": "photos.jsonl"}],
        "longest_edge_px": 64,
        "allow_outside_root": True,
    }
    train = {"output_dir": str(tmp_path / "out"), "use_cpu": True}
    run_file = write_yaml(
        tmp_path / "run.yaml", {"model": settings["model"], "data": data, "train": train}
    )
    outcome = smolvlm_command("train", run_file)
    assert outcome.status == 1
    error = outcome.messages[outcome.messages.index("error: ") :]
    assert error.startswith(("error: photos.jsonl:1: ", "error: photos.jsonl:2: "))
    assert "cut.png" in error
    assert "  fix: " in error
    assert "Traceback" not in outcome.messages


def test_the_page_is_written_while_it_trains_and_ends_without_refreshing(
    run_file: Path, smolvlm_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def write(run_dir: Path) -> None:
        pages.append(write_run_report(run_dir).read_text())

    monkeypatch.setattr(smolvlm.runs.live_report, "write_run_report", write)
    monkeypatch.setattr(smolvlm.runs.live_report, "MAX_SHARE", 1e9)
    outcome = smolvlm_command(
        "train", run_file, f"train.output_dir={tmp_path}", "eval.at_start=false"
    )
    assert outcome.status == 0, outcome.messages
    steps = [re.findall(r"Step (\d+) of (\d+), still", page) for page in pages]
    assert len(pages) == 2, "two epochs, and an evaluation after each"
    assert len(steps[0]) == 1
    assert "steps are done; the end is being evaluated and saved." in pages[1]
    assert all('http-equiv="refresh"' in page for page in pages)
    assert all("Evaluations on the way" in page for page in pages)
    assert 'http-equiv="refresh"' not in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "progress.json").exists()


def test_the_page_says_what_was_learned_from_and_how_long_it_took(out: Path) -> None:
    start = json.loads((out / "run.json").read_text())
    counts = [(source["name"], source["num_rows"]) for source in start["sources"]]
    assert counts == [("photos", 8), ("words", 8)]
    assert start["seconds"] > 0
    page = (out / "report.html").read_text()
    assert "<h2>Data by source</h2>" in page
    assert "loading, steps, evaluations, saving" in page
