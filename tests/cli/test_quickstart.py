"""The parts of the quickstart: questions by type, baselines that never look, and what its check
would find."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm.cli.quickstart import (
    GROUPS,
    RUN_FILE,
    QuickstartError,
    check_run,
    shortened,
    show_result,
    split_by_group,
    write_baselines,
)
from smolvlm.config.load import load_run_config
from smolvlm.package_index import fetch_wheel
from smolvlm.quickstart.easy_vqa import EASY_VQA_WHEEL, _rows
from smolvlm.report.files import read_predictions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real rows, without their pictures."""
    folder = tmp_path_factory.mktemp("quickstart")
    with zipfile.ZipFile(fetch_wheel(EASY_VQA_WHEEL)) as archive:
        for split in ("train", "eval"):
            (folder / f"{split}.jsonl").write_text(_rows(archive, split))
    split_by_group(folder)
    return folder


def test_every_held_out_question_goes_to_the_file_of_its_type(data: Path, json_rows: Any) -> None:
    held_out = json_rows(data / "eval.jsonl")
    parts = {group: json_rows(data / f"eval-{group}.jsonl") for group in GROUPS}
    assert {group: len(rows) for group, rows in parts.items()} == {
        "shape": 1257,
        "color": 1280,
        "yes_no": 7136,
    }
    for group, rows in parts.items():
        assert rows == [row for row in held_out if row["question_type"] == group]


def test_baselines_on_the_real_questions(data: Path, tmp_path: Path) -> None:
    write_baselines(data, tmp_path / "baselines.json", max_rows=None)
    scores = json.loads((tmp_path / "baselines.json").read_text())
    assert scores.keys() == {"majority", "question_only"}
    assert {group: round(100 * score, 1) for group, score in scores["question_only"].items()} == {
        "shape": pytest.approx(35, abs=1),
        "color": pytest.approx(12, abs=1),
        "yes_no": pytest.approx(82.5, abs=0.5),
    }
    assert scores["majority"]["shape"] == pytest.approx(1 / 3, abs=0.05)
    assert scores["majority"]["color"] == pytest.approx(1 / 8, abs=0.03)
    assert 0.5 < scores["majority"]["yes_no"] < scores["question_only"]["yes_no"]


def test_baselines_answer_the_rows_that_the_run_answers(data: Path, tmp_path: Path) -> None:
    write_baselines(data, tmp_path / "few.json", max_rows=10)
    scores = json.loads((tmp_path / "few.json").read_text())
    assert all(float(10 * score).is_integer() for own in scores.values() for score in own.values())


def test_the_run_file_and_its_short_form_load(tmp_path: Path) -> None:
    for text in (RUN_FILE.read_text(), shortened(RUN_FILE.read_text(), 7)):
        (tmp_path / "run.yaml").write_text(text)
        config = load_run_config(tmp_path / "run.yaml")
        assert config.model.path == "embedded"
        assert config.train.vision_tower_lr == 0
    assert config.train.arguments["max_steps"] == 7
    assert "num_train_epochs" not in config.train.arguments
    assert config.eval.max_rows == 100
    assert yaml.safe_load(RUN_FILE.read_text())["eval"].get("max_rows") is None


def test_predictions_are_read_as_they_were_written(out: Path, json_rows: Any) -> None:
    predictions = read_predictions(out / "predictions.jsonl")
    assert [own.answer for own in predictions] == [
        row["prediction"] for row in json_rows(out / "predictions.jsonl")
    ]
    assert [len(own.images) for own in predictions] == [1, 1, 1, 0, 0, 0]


def test_a_run_that_learned_and_reloads_passes_the_check(
    out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_run(out)
    assert "plain transformers answers " in capsys.readouterr().err


@pytest.fixture
def copied(out: Path, tmp_path: Path) -> Path:
    """The trained run's small files and a link to its weights, to be spoiled."""
    shutil.copytree(
        out, tmp_path / "out", ignore=shutil.ignore_patterns("checkpoint-*", "vision_cache")
    )
    return tmp_path / "out"


def test_a_loss_that_did_not_fall_is_found(copied: Path) -> None:
    lines = (copied / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copied / "metrics.jsonl").write_text("".join(reversed(lines)))
    with pytest.raises(QuickstartError, match="the loss did not fall"):
        check_run(copied)


def test_an_answer_that_plain_transformers_does_not_give_is_found(
    copied: Path, json_rows: Any
) -> None:
    rows = json_rows(copied / "predictions.jsonl")
    rows[0]["prediction"] = "something else"
    (copied / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(QuickstartError, match="the evaluation noted 'something else'"):
        check_run(copied)


def test_the_result_stands_beside_the_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = dict.fromkeys(GROUPS, 0.25)
    (tmp_path / "baselines.json").write_text(
        json.dumps({"majority": scores, "question_only": scores})
    )
    for name, said in (("predictions-before", "no"), ("predictions", "yes")):
        rows = [
            {
                "where": "",
                "source": group,
                "group": group,
                "question": "?",
                "prediction": said,
                "references": [truth],
                "correct": float(said == truth),
                "images": [],
            }
            for group in GROUPS
            for truth in ("yes", "yes", "yes", "no")
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    show_result(tmp_path)
    shown = capsys.readouterr().err
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in shown.splitlines()
        if "│" in line
    ]
    for group in GROUPS:
        assert [group, "4", "25.0", "25.0", "25.0", "75.0"] in cells
    assert any("balanced" in cell for row in cells for cell in row)
    assert "report.html" in shown
