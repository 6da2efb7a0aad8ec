"""Scoring by lmms-eval: the command, the server, and results read; lmms-eval itself is not needed.

`make eval-check` runs it for real.
"""

import argparse
import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from scripts.eval import lmms_eval
from scripts.eval.lmms_eval import Endpoint, EvalError
from tests.web_server import send, web_server

ROOT = Path(__file__).parents[2]
TASK = ROOT / "scripts" / "eval" / "tasks" / "drawn_shapes"
ENDPOINT = Endpoint(base_url="http://127.0.0.1:8000/v1", model="/runs/first")


def command(endpoint: Endpoint = ENDPOINT, limit: int | None = None) -> list[str]:
    return lmms_eval.lmms_command(
        Path("env/bin/python"), endpoint, tasks="chartqa,ai2d", out=Path("out"), limit=limit
    )


def test_the_command_asks_the_served_model_one_question_at_a_time() -> None:
    words = command()
    assert words[:4] == ["env/bin/python", "-m", "lmms_eval", "eval"]
    options = dict(zip(words[4::2], words[5::2], strict=False))
    assert options["--model"] == "async_openai"
    assert options["--tasks"] == "chartqa,ai2d"
    assert options["--include_path"] == str(TASK.parent)
    arguments = dict(pair.split("=") for pair in options["--model_args"].split(","))
    assert arguments["model_version"] == "/runs/first"
    assert arguments["base_url"] == "http://127.0.0.1:8000/v1"
    assert arguments["num_cpus"] == "1"
    assert "--log_samples" in words, "failed questions are found in them"
    assert "--limit" not in words
    assert command(limit=8)[-2:] == ["--limit", "8"]


@pytest.mark.parametrize("name", ["/runs/a,b", "/runs/lr=1"])
def test_a_name_that_lmms_eval_would_cut_is_refused(name: str) -> None:
    with pytest.raises(EvalError, match="rename the folder"):
        command(Endpoint(base_url="http://127.0.0.1:1/v1", model=name))


def test_nothing_is_fetched_offline() -> None:
    assert lmms_eval.lmms_settings(is_offline=True)["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in lmms_eval.lmms_settings(is_offline=False)


def test_the_environment_is_made_only_where_that_is_wished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EvalError, match="give --make-env"):
        lmms_eval.environment_python(tmp_path, may_make=False)
    asked = list[list[str]]()

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        return subprocess.CompletedProcess(words, 1)

    monkeypatch.setattr(lmms_eval.venv, "create", lambda *_, **__: None)
    monkeypatch.setattr(lmms_eval.subprocess, "run", run)
    with pytest.raises(EvalError, match="was not installed"):
        lmms_eval.environment_python(tmp_path, may_make=True)
    assert asked[0][0] == str(tmp_path / "bin" / "python")
    assert asked[0][-2:] == ["lmms-eval==0.7.3", "filelock<4"]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lmms-eval").touch()
    python = lmms_eval.environment_python(tmp_path, may_make=False)
    assert python == tmp_path / "bin" / "python"


def test_the_served_models_name_is_read_off_what_the_server_says() -> None:
    said = "base_url http://127.0.0.1:1/v1\nmodel    /a folder/run\nCtrl-C ends\n"
    assert lmms_eval.served_name(said) == "/a folder/run"
    with pytest.raises(EvalError):
        lmms_eval.served_name("base_url http://127.0.0.1:1/v1\n")


def test_a_server_is_healthy_when_it_says_so() -> None:
    with web_server() as server:
        assert not lmms_eval.is_healthy(server.address)
        server.serve_by("/health", lambda request: send(request, b'{"status": "starting"}'))
        assert not lmms_eval.is_healthy(server.address)
        server.serve_by("/health", lambda request: send(request, b'{"status": "ok"}'))
        assert lmms_eval.is_healthy(server.address)
    assert not lmms_eval.is_healthy(server.address)


def test_a_server_that_does_not_start_is_an_error_with_its_words(tmp_path: Path) -> None:
    with (
        pytest.raises(EvalError, match=r"did not start(.|\n)*error: "),
        lmms_eval.served(tmp_path / "none", tmp_path / "log", device="cpu"),
    ):
        raise AssertionError("it cannot have started")


RESULTS: dict[str, Any] = {
    "results": {
        "drawn_shapes": {
            "alias": "drawn_shapes",
            "exact_match,none": 0.5,
            "exact_match_stderr,none": 0.1,
            "exact_match_stderr_clt,none": 0.1,
            "exact_match_stderr_clustered,none": "N/A",
        },
        "mme": {"alias": "mme", "mme_score,none": 1200},
    },
    "n-samples": {"drawn_shapes": {"original": 24, "effective": 8}},
}
"""In the form of lmms-eval 0.7.3."""


def write_results(out: Path, *answers: str) -> Path:
    folder = out / "runs__first"
    folder.mkdir(parents=True)
    file = folder / "20261201_041908_results.json"
    file.write_text(json.dumps(RESULTS))
    names = ("resps", "filtered_resps")  # the first is left out where both are equal
    rows = [json.dumps({names[number % 2]: text}) for number, text in enumerate(answers)]
    (folder / "20261201_041908_samples_drawn_shapes.jsonl").write_text("\n".join(rows))
    return file


def test_scores_are_read_without_their_errors() -> None:
    scores = lmms_eval.scores_of(RESULTS)
    assert scores == [("drawn_shapes", "exact_match", 0.5, 8), ("mme", "mme_score", 1200.0, 0)]
    assert "0.5000" in lmms_eval.table(scores)


@pytest.fixture
def arguments(tmp_path: Path) -> argparse.Namespace:
    (tmp_path / "run").mkdir()
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "lmms-eval").touch()
    python = tmp_path / "env" / "bin" / "python"
    python.symlink_to(sys.executable)
    return argparse.Namespace(
        run=tmp_path / "run",
        tasks="drawn_shapes",
        limit=None,
        out=None,
        env=tmp_path / "env",
        make_env=False,
        offline=True,
        device="cpu",
    )


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        (["circle", "red"], 0),
        (["circle", "[LMMS_EVAL_REQUEST_FAILED after 2 retries] Connection error."], 3),
        (["[LMMS_EVAL_REQUEST_FAILED after 2 retries] Connection error.", "red"], 3),
    ],
)
def test_unanswered_questions_are_no_scores(
    arguments: argparse.Namespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answers: list[str],
    status: int,
) -> None:
    def run(words: list[str], **settings: Any) -> subprocess.CompletedProcess[str]:
        assert settings["env"]["HF_HUB_OFFLINE"] == "1"
        write_results(Path(words[words.index("--output_path") + 1]), *answers)
        return subprocess.CompletedProcess(words, 0)

    monkeypatch.setattr(lmms_eval, "served", lambda *_, **__: nullcontext(ENDPOINT))
    monkeypatch.setattr(lmms_eval.subprocess, "run", run)
    assert lmms_eval.evaluate(arguments) == status
    captured = capsys.readouterr()
    assert "exact_match" in captured.out
    assert ("1 of 2 questions were not answered" in captured.err) == (status == 3)


def test_results_of_an_earlier_run_are_not_taken_for_new_ones(
    arguments: argparse.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lmms-eval ends with status 0 where it was stopped by an error of its own."""
    write_results(arguments.run / "lmms-eval", "circle")

    monkeypatch.setattr(lmms_eval, "served", lambda *_, **__: nullcontext(ENDPOINT))
    monkeypatch.setattr(
        lmms_eval.subprocess, "run", lambda words, **_: subprocess.CompletedProcess(words, 0)
    )
    with pytest.raises(EvalError, match="no new results"):
        lmms_eval.evaluate(arguments)


def test_a_missing_run_is_named(arguments: argparse.Namespace) -> None:
    arguments.run = arguments.run / "none"
    with pytest.raises(EvalError, match="no such folder"):
        lmms_eval.evaluate(arguments)


def test_the_local_task_is_whole() -> None:
    rows = [json.loads(line) for line in (TASK / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 24
    for row in rows:
        with Image.open(TASK / row["image"]) as picture:
            assert picture.size == (64, 64)
    text = (TASK / "drawn_shapes.yaml").read_text().replace("!function ", "")
    task = yaml.safe_load(text)
    assert task["task"] == "drawn_shapes"
    assert (TASK / task["dataset_kwargs"]["data_files"]["test"]).is_file()


def test_the_local_tasks_functions() -> None:
    from scripts.eval.tasks.drawn_shapes import utils

    row = {"question": "what is it?", "answer": "circle", "image": "pictures/00.png"}
    assert utils.pictures(row)[0].mode == "RGB"
    assert utils.question(row) == "what is it?"
    assert utils.score(row, [" Circle."]) == {"exact_match": 1.0}
    assert utils.score(row, ["a circle"]) == {"exact_match": 0.0}


def test_the_pictures_are_what_draw_writes() -> None:
    from scripts.eval.tasks.drawn_shapes import draw

    with Image.open(TASK / "pictures" / "00.png") as picture:
        kept = picture.convert("RGB")
    assert kept.tobytes() == draw.draw("circle", "red", 0).tobytes()
