"""Answers as JSON lines and as Parquet."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from smolvlm.eval.metrics.exact_match import exact_match
from smolvlm.eval.prediction import Prediction, TokenScores
from smolvlm.eval.prediction_files import BASE_SCHEMA, SCHEMA, write_predictions

PREDICTIONS = [
    Prediction(
        where="a.jsonl:1",
        source="signs",
        group="signs",
        question="Was heißt das?",
        answer="The café",
        references=("café", "bar"),
        correct=1.0,
        images=("a.png",),
        scores={"exact_match": 1.0, "anls": 0.5},
        tokens=TokenScores(loss=3.0, num_right=1, num_tokens=2),
        key="ab12",
    ),
    Prediction(
        where="b.jsonl:7",
        source="b",
        group="b",
        question="?",
        answer="no",
        references=("yes",),
        correct=0.0,
        images=(),
    ),
]


def test_predictions_are_written_one_object_a_row(tmp_path: Path) -> None:
    write_predictions(PREDICTIONS, tmp_path / "predictions.jsonl")
    text = (tmp_path / "predictions.jsonl").read_text()
    assert "café" in text
    first, second = map(json.loads, text.splitlines())
    assert first == {
        "where": "a.jsonl:1",
        "source": "signs",
        "group": "signs",
        "question": "Was heißt das?",
        "prediction": "The café",
        "references": ["café", "bar"],
        "correct": exact_match("The café", ["café", "bar"]),
        "images": ["a.png"],
        "scores": {"exact_match": 1.0, "anls": 0.5},
        "loss": 1.5,
        "token_accuracy": 0.5,
        "num_tokens": 2,
        "key": "ab12",
    }
    assert (second["correct"], second["images"], second["loss"]) == (0.0, [], None)


def test_the_parquet_file_has_the_same_rows(tmp_path: Path) -> None:
    write_predictions(PREDICTIONS, tmp_path / "said.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    table = pq.read_table(tmp_path / "said.parquet")
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert [{**row, "scores": dict(row["scores"])} for row in rows] == lines
    write_predictions([], tmp_path / "said.jsonl")
    assert pq.read_table(tmp_path / "said.parquet").num_rows == 0


def test_what_the_base_said_stands_beside_each_answer(tmp_path: Path) -> None:
    base = [replace(PREDICTIONS[0], answer="a bar", scores={"exact_match": 1.0}, key="cd34")]
    write_predictions(PREDICTIONS, tmp_path / "said.jsonl", base=base)
    first, second = map(json.loads, (tmp_path / "said.jsonl").read_text().splitlines())
    assert (first["prediction"], first["base_prediction"]) == ("The café", "a bar")
    assert (first["base_scores"], first["base_key"]) == ({"exact_match": 1.0}, "cd34")
    assert second["base_prediction"] is None
    table = pq.read_table(tmp_path / "said.parquet")
    assert table.schema.equals(BASE_SCHEMA)
    assert table["base_prediction"].to_pylist() == ["a bar", None]


def test_a_device_gets_the_lines_alone() -> None:
    write_predictions(PREDICTIONS, Path(os.devnull))
    assert not Path(os.devnull).with_suffix(".parquet").exists()


def test_half_a_surrogate_pair_is_kept_as_json_writes_it(tmp_path: Path) -> None:
    """A row's JSON may hold one, and it has no bytes in UTF-8."""
    write_predictions([replace(PREDICTIONS[1], question="a\ud800b")], tmp_path / "odd.jsonl")
    assert json.loads((tmp_path / "odd.jsonl").read_bytes())["question"] == "a\ud800b"
    assert pq.read_table(tmp_path / "odd.parquet")["question"].to_pylist() == ["a\\ud800b"]


def test_an_interrupted_write_leaves_the_former_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_predictions(PREDICTIONS, tmp_path / "said.jsonl")
    before = (tmp_path / "said.parquet").read_bytes()
    monkeypatch.setattr(pq, "write_table", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write_predictions(PREDICTIONS[:1], tmp_path / "said.jsonl")
    assert (tmp_path / "said.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["said.jsonl", "said.parquet"]
