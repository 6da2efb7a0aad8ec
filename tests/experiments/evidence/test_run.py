"""The evidence from data to table at tiny dimensions: every command of it runs, and what it writes
is whole."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import experiments.evidence.run
from experiments.charts.questions import CHART_QUESTION_TYPES
from experiments.evidence.figures import joined
from experiments.evidence.run import SHORT_ROWS, SHORT_STEPS, STAGES, main
from smolvlm.build.tiny import tiny_model
from smolvlm.cli.main import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The charts' part, its commands called in this process, with a tiny random model."""
    out = tmp_path_factory.mktemp("evidence")
    base = tiny_model(out / "tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments.evidence.run, "smolvlm", in_this_process)
        assert main(["charts", "--short", "--out", str(out), "--base", str(base)]) == 0
    return out


def in_this_process(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_both_stages_trained_and_every_state_answered(folder: Path) -> None:
    own = folder / "charts"
    for stage in STAGES:
        answers = lines(own / f"{stage}.jsonl")
        assert {row["source"] for row in answers} == set(CHART_QUESTION_TYPES)
        assert len(answers) == SHORT_ROWS * len(CHART_QUESTION_TYPES)
    train, evals, ends = joined([own / stage for stage in STAGES])
    assert [line["step"] for line in train] == list(range(1, 2 * SHORT_STEPS + 1))
    assert ends == [SHORT_STEPS, 2 * SHORT_STEPS]
    assert [line["step"] for line in evals] == ends
    assert train[0]["learning_rate_language_model"] == 0 < train[-2]["learning_rate_language_model"]


def test_the_merged_model_answers_as_the_adapted_one_and_can_be_trained_further(
    folder: Path, tmp_path: Path
) -> None:
    merged, data = folder / "charts" / "merged", folder / "charts" / "data"
    answers = tmp_path / "answers.jsonl"
    settings = [
        f"eval.max_rows={SHORT_ROWS}",
        "data.image_splitting=false",
        "eval.max_new_tokens=3",
    ]
    mixture = ["--mixture", mixture_of(data, tmp_path / "eval.yaml")]
    in_this_process("eval", merged, *settings, *mixture, "--predictions", answers)
    adapted = lines(folder / "charts" / f"{STAGES[-1]}.jsonl")
    assert [row["prediction"] for row in lines(answers)] == [row["prediction"] for row in adapted]
    run_file = experiments.evidence.run.RUN_FILES / "charts_2_then_lora.yaml"
    places = [
        f"model.path={merged}",
        f"data.base_dir={data}",
        f"train.output_dir={tmp_path / 'further'}",
    ]
    in_this_process(
        "train", run_file, *places, "train.max_steps=1", "train.logging_steps=1", "eval.max_rows=1"
    )
    assert (tmp_path / "further" / "adapter_model.safetensors").is_file()


def mixture_of(data: Path, file: Path) -> Path:
    """Write the held-out sources of the run as a mixture."""
    rows = [
        f"- {{name: {kind}, json_path: {data}/eval-{kind}.jsonl}}" for kind in CHART_QUESTION_TYPES
    ]
    file.write_text("\n".join(rows))
    return file


def test_the_report_is_made_again_from_what_lies_there(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = folder / "evidence_charts.svg"
    drawn = figure.read_bytes()
    figure.unlink()
    assert main(["charts", "--report", "--out", str(folder)]) == 0
    assert figure.read_bytes() == drawn
    assert b"question only" in drawn
    shown = capsys.readouterr().out
    for kind in CHART_QUESTION_TYPES:
        assert kind in shown


def test_an_unknown_task_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["diagrams"])
    assert "no task diagrams; there are easy_vqa, charts" in capsys.readouterr().err


def test_a_command_that_fails_stops_the_work() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        experiments.evidence.run.smolvlm("no-such-command")
