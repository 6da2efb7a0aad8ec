"""The library as a program uses it: a run from rows in memory, looked at, trained, resumed,
evaluated and asked."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from transformers import TrainerCallback

from smolvlm import api
from smolvlm.build.processor import ModelType
from smolvlm.errors import ConfigError

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def rows(photos: dict[str, Path]) -> list[dict[str, Any]]:
    """A question about each of two photographs, one opened, one by its path; and one without."""
    with Image.open(photos["coffee"]) as image:
        opened = image.convert("RGB")
    return [
        {"question": "What is shown?", "answer": "coffee", "image": opened},
        {"question": "What is shown?", "answer": "a camera", "image": str(photos["camera"])},
        {"question": "One and one?", "answer": "two"},
    ]


@pytest.fixture(scope="module")
def settings(
    checkpoint_folders: dict[ModelType, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    return {
        "model": {"path": str(checkpoint_folders["smolvlm"])},
        "data": {"longest_edge_px": 64, "max_tokens_per_pack": 256},
        "train": {
            "output_dir": str(tmp_path_factory.mktemp("api") / "out"),
            "packs_per_step": 1,
            "max_steps": 4,
            "save_steps": 2,
            "logging_steps": 1,
            "use_cpu": True,
        },
        "eval": {"max_new_tokens": 4},
    }


class Steps(TrainerCallback):
    """Notes the steps that it is told of."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        self.seen.append(state.global_step)


@pytest.fixture(scope="module")
def trained(settings: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[Path, Steps]:
    steps = Steps()
    api.train(api.load_config(settings, rows=rows, eval_rows=rows[:1]), callbacks=[steps])
    return Path(settings["train"]["output_dir"]), steps


def test_importing_it_loads_nothing_heavy() -> None:
    heavy = ("torch", "transformers", "numpy", "PIL", "pydantic", "pyarrow")
    code = (
        f"import sys; from smolvlm import api; print([name for name in {heavy} if name in "
        f"sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == "[]"


def test_its_names_stay_after_folders_of_the_same_names_were_imported() -> None:
    import smolvlm.build
    import smolvlm.check
    import smolvlm.export
    import smolvlm.inspect
    import smolvlm.train.train

    assert smolvlm.train.train is not api.train
    assert all(callable(getattr(api, name)) for name in api.__all__)


def test_a_run_from_memory_prints_nothing_and_follows_its_callbacks(
    settings: dict[str, Any],
    rows: list[dict[str, Any]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    steps = Steps()
    own = {**settings, "train": {**settings["train"], "output_dir": str(tmp_path / "out")}}
    api.train(api.load_config(own, rows=rows), callbacks=[steps])
    printed = capfd.readouterr()
    assert printed.out == ""
    left = [
        line
        for line in re.split("[\n\r]", printed.err)
        if line and "it/s]" not in line and "?, ?" not in line
    ]
    assert left == [], "bars of transformers aside"
    assert steps.seen == [1, 2, 3, 4]
    assert (tmp_path / "out" / "report.html").is_file()


def test_rows_are_known_by_a_digest_and_resume_where_they_come_again(
    trained: tuple[Path, Steps], settings: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    folder, _ = trained
    (source,) = yaml.safe_load((folder / "run.yaml").read_text())["data"]["mixture"]
    assert re.fullmatch("[0-9a-f]{32}", source["memory"])
    again = Steps()
    longer = {**settings, "train": {**settings["train"], "save_total_limit": 3}}
    api.train(api.load_config(longer, rows=iter(rows), eval_rows=rows[:1]), callbacks=[again])
    assert again.seen == [], "the run is done: the same rows are the same run"
    changed = [{**rows[0], "answer": "tea"}, *rows[1:]]
    with pytest.raises(ConfigError, match="belongs to another run"):
        api.train(api.load_config(longer, rows=changed, eval_rows=rows[:1]))


def test_rows_that_are_not_here_are_named(settings: dict[str, Any]) -> None:
    mixture = [{"memory": "0" * 32}]
    config = api.load_config({**settings, "data": {"mixture": mixture}})
    with pytest.raises(ConfigError, match="hand the same rows over again"):
        api.inspect(config)


def test_an_inspection_shows_itself(
    settings: dict[str, Any], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    found = api.inspect(api.load_config(settings, rows=rows), end=2)
    assert len(found.as_objects()) == 2
    assert "shown?" in str(found)
    page = found.write_html(tmp_path / "look.html").read_text()
    notebook = found._repr_html_()
    assert notebook.startswith("<iframe sandbox ")
    assert "&lt;" not in notebook.partition("srcdoc=")[2][:200]
    assert page.count("<script") == 0


def test_prepare_and_check_return_what_they_find(
    settings: dict[str, Any], rows: list[dict[str, Any]]
) -> None:
    broken = [*rows, {"question": "And this?", "answer": "?", "image": "no-such-file.png"}]
    config = api.load_config(settings, rows=broken)
    measured = api.prepare(config, num_workers=1)
    (count,) = measured.counts
    assert (count.num_rows, count.num_skipped) == (4, 1)
    found = api.check(config, num_workers=1)
    assert [finding.where for finding in found.findings if finding.severity == "error"] == [
        "rows:4"
    ]


def test_a_script_without_a_guard_is_told_and_does_not_hang(
    settings: dict[str, Any], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Each process that reads rows starts by running the script again, as Python's multiprocessing
    has it."""
    questions = [{name: row[name] for name in ("question", "answer")} for row in rows]
    script = tmp_path / "script.py"
    script.write_text(
        f"from smolvlm import api\nrows = {questions!r}\n"
        f"config = api.load_config({settings!r}, rows=rows, eval_rows=rows)\n"
        "api.check(config)\nprint('few rows need no process')\napi.check(config, num_workers=2)\n"
    )
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=600, check=False
    )
    assert ran.returncode == 1
    assert ran.stdout.count("few rows need no process") >= 1
    assert 'if __name__ == "__main__":' in ran.stderr
    assert "a process that reads rows died" in ran.stderr


def test_a_run_is_evaluated_and_answers(
    trained: tuple[Path, Steps], rows: list[dict[str, Any]], photos: dict[str, Path]
) -> None:
    folder, steps = trained
    assert steps.seen == [1, 2, 3, 4]
    evaluation = api.evaluate(folder)
    (noted,) = [
        json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()
    ]
    assert [prediction.answer for prediction in evaluation.predictions] == [noted["prediction"]]
    model = api.load(folder, device="cpu")
    assert model.ask(rows[0]["question"], rows[0]["image"], max_new_tokens=4) == noted["prediction"]
    others = api.evaluate(folder, rows=rows[1:])
    assert len(others.predictions) == 2
    by_path = model.ask("What is shown?", photos["camera"], max_new_tokens=4)
    assert by_path == others.predictions[0].answer


def test_what_is_asked_with_has_to_be_a_picture_or_a_clip(trained: tuple[Path, Steps]) -> None:
    with pytest.raises(ConfigError, match="set is neither a picture nor a clip"):
        api.load(trained[0], device="cpu").ask("What?", {1})  # type: ignore[arg-type]


def test_a_clip_is_asked_about(trained: tuple[Path, Steps], clips: dict[str, Path]) -> None:
    model = api.load(trained[0], device="cpu")
    assert isinstance(model.ask("What?", clips["steady"], clips["frames"], max_new_tokens=2), str)


def test_export_writes_a_stock_model(trained: tuple[Path, Steps], tmp_path: Path) -> None:
    names = {path.name for path in api.export(trained[0], tmp_path / "out")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names


def test_mistakes_are_listed_together() -> None:
    with pytest.raises(ConfigError) as caught:
        api.load_config({"model": {"pth": "x"}, "train": {"output_dir": "x", "packs_per_step": 0}})
    text = str(caught.value)
    assert text.startswith("settings: ")
    for key in ("model.pth", "train.packs_per_step", "data"):
        assert key in text


def test_the_page_on_python_runs_as_it_stands(
    checkpoint_folders: dict[ModelType, Path],
    photos: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a tiny checkpoint in place of the released one, and a photograph in place of the
    reader's."""
    (code,) = re.findall("```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    statements = [line for line in code.splitlines() if line and not line.startswith((" ", "}"))]
    assert len(statements) < 15
    with Image.open(photos["coffee"]) as image:
        image.convert("RGB").save(tmp_path / "breakfast.jpg")
    monkeypatch.chdir(tmp_path)
    exec(
        code.replace("HuggingFaceTB/SmolVLM-256M-Instruct", str(checkpoint_folders["smolvlm"])), {}
    )
    printed = capsys.readouterr().out
    assert "What is on the plate?" in printed
    assert "exact_match" in printed
    assert (tmp_path / "runs" / "first" / "model.safetensors").is_file()


def test_settings_may_be_given_as_they_are(settings: dict[str, Any], tmp_path: Path) -> None:
    """A mapping or a run file in place of what `load_config` returns; one override as a text."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"question": "q?", "answer": "a"}) + "\n")
    data = {**settings["data"], "mixture": [{"json_path": str(rows)}]}
    content = {**settings, "data": data}
    assert api.load_config(content, "train.connector_lr=0.5").train.connector_lr == 0.5
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(content))
    for given in (content, tmp_path / "run.yaml", str(tmp_path / "run.yaml")):
        assert len(api.inspect(given, end=1).examples) == 1
    assert api.check(content).num_errors == 0


def test_a_run_says_what_it_is_in_a_line(
    trained: tuple[Path, Steps], settings: dict[str, Any]
) -> None:
    run = api.train(
        api.load_config(
            settings,
            rows=[{"question": "q?", "answer": "a"}] * 2,
            overrides=[f"train.output_dir={trained[0].parent / 'other'}", "train.max_steps=1"],
        )
    )
    assert repr(run).startswith("<run in ")
    assert "1 of 1 steps" in repr(run)
