"""`smolvlm prepare`: what a mixture is made of, from files of every format, with bad rows named and
counted."""

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import yaml

ROWS = [{"question": f"What is {number}?", "answer": "a number"} for number in range(10)]


@pytest.fixture
def mixture(tmp_path: Path, rows_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five sources, one of a format each."""
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    named = [{**row, "id": number, "source": None} for number, row in enumerate(ROWS)]
    (tmp_path / "list.json").write_text(json.dumps([*named, {"question": "q", "answer": ""}]))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "table.parquet")
    saved = datasets.DatasetDict(
        {"train": datasets.Dataset.from_list(ROWS), "test": datasets.Dataset.from_list(ROWS[:3])}
    )
    saved.save_to_disk(tmp_path / "saved")
    sources = [
        {"path": "list.json"},
        {"path": "table.parquet", "sampling_strategy": "first:25%"},
        {"path": "saved", "split": "test", "repeat": 2},
        {"path": str(rows_folder / "photos.jsonl")},
    ]
    path = tmp_path / "mixture.yaml"
    path.write_text(yaml.safe_dump(sources))
    return path


def test_each_source_is_an_object(
    mixture: Path, settings: dict[str, Any], smolvlm_command: Any
) -> None:
    model = settings["model"]["path"]
    arguments = ["data.on_bad_sample=skip", "data.max_bad_fraction=0.1"]
    outcome = smolvlm_command(
        "prepare", mixture, *arguments, "--model", model, "--allow-outside-root", "--json"
    )
    assert outcome.status == 0, outcome.messages
    found = {own["name"]: own for own in outcome.objects}
    assert {name: (own["rows"], own["used"], own["repeat"]) for name, own in found.items()} == {
        "list": (11, 11, 1.0),
        "table": (10, 3, 1.0),
        "saved": (3, 3, 2.0),
        "photos": (8, 8, 1.0),
    }
    assert {name: own["not_read"] for name, own in found.items()} == {
        "list": ["id"],
        "table": [],
        "saved": [],
        "photos": [],
    }
    assert "not read in list: id" in outcome.messages
    assert found["list"]["skipped"] == {"the answer is empty": 1}
    assert {name: own["modality"] for name, own in found.items()}["photos"] == "image"
    assert found["photos"]["tiles"] > 8
    assert found["list"]["tokens"] > 10 * found["table"]["tokens"] / 3 * 0.9
    assert "rows by modality: text " in outcome.messages
    assert "bad rows in list: 1 of 11; training skips them" in outcome.messages
    assert "- list.json:11: the answer is empty" in outcome.messages
    assert list((mixture.parent / "home" / "lengths").glob("list-*/*.parquet")), (
        "the sizes are kept"
    )


def test_a_run_file_names_model_and_budget(
    mixture: Path, settings: dict[str, Any], smolvlm_command: Any, write_yaml: Any
) -> None:
    data = {**settings["data"], "mixture": mixture.name}
    run_file = write_yaml(mixture.parent / "run.yaml", {**settings, "data": data})
    skip = ["data.on_bad_sample=skip", "data.max_bad_fraction=0.1"]
    outcome = smolvlm_command("prepare", run_file, "data.max_tokens_per_pack=256", *skip)
    assert outcome.status == 0, outcome.messages
    assert "packs of 256 tokens" in " ".join(outcome.messages.split())
    assert outcome.output == ""
    once = smolvlm_command("prepare", run_file, "train.num_train_epochs=1", *skip)
    assert "vision cache    not written: no tile is shown twice; data" in once.messages
    again = smolvlm_command("prepare", run_file, "train.num_train_epochs=2.5", *skip)
    cached = next(line for line in again.messages.splitlines() if line.startswith("vision cache"))
    _, distinct, shown = re.fullmatch(
        r"vision cache    ([\d.]+ [kM]B) for (\d+) tiles, shown (\d+) times", cached
    ).groups()
    assert int(shown) == round(2.5 * int(distinct)) > 20
    trained = smolvlm_command("prepare", run_file, "train.vision_tower_lr=1e-5", *skip)
    assert "vision cache" not in trained.messages


def test_a_split_that_is_not_there_is_named(
    mixture: Path, settings: dict[str, Any], smolvlm_command: Any
) -> None:
    mixture.write_text(yaml.safe_dump([{"path": "saved", "split": "validation"}]))
    outcome = smolvlm_command("prepare", mixture, "--model", settings["model"]["path"])
    assert outcome.status == 1
    assert (
        "saved: no split 'validation'\n  fix: set `split` to one of train, test" in outcome.messages
    )


def test_an_unknown_engine_is_wrong_usage(mixture: Path, smolvlm_command: Any) -> None:
    assert smolvlm_command("prepare", mixture, "--engine", "spark").status == 2


def test_settings_besides_take_effect_on_a_bare_mixture(
    mixture: Path, settings: dict[str, Any], smolvlm_command: Any
) -> None:
    arguments = ["--model", settings["model"]["path"], "--allow-outside-root"]
    outcome = smolvlm_command("prepare", mixture, "data.max_tokens_per_pack=512", *arguments)
    assert "of 512 tokens" in " ".join(outcome.messages.split())
    assert smolvlm_command("prepare", mixture, "data.max_token=512", *arguments).status == 1


def test_what_a_filter_and_empty_files_leave_out_is_said(
    mixture: Path, settings: dict[str, Any], smolvlm_command: Any
) -> None:
    rows = [{**row, "score": number} for number, row in enumerate(ROWS)]
    folder = mixture.parent
    (folder / "p-0.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "p-1.jsonl").write_text("")
    entry = {"path": "p-*.jsonl", "name": "parts", "filter": {"score": {">=": 7}}}
    mixture.write_text(yaml.safe_dump([entry]))
    model = settings["model"]["path"]
    outcome = smolvlm_command("prepare", mixture, "--model", model, "--json")
    assert outcome.status == 0, outcome.messages
    (found,) = outcome.objects
    assert (found["rows"], found["filtered"], found["used"]) == (10, 7, 3)
    notes = ["filter of parts: 7 of 10 rows left out", "no rows in parts: p-1.jsonl"]
    for command in ("prepare", "check"):
        outcome = smolvlm_command(command, mixture, "--model", model)
        assert outcome.status == 0, outcome.messages
        assert [outcome.messages.count(note) for note in notes] == [1, 1]


EMPTY = {"question": "q", "answer": ""}
GONE = {"question": "q", "answer": "a", "image": "gone.png"}


@pytest.mark.parametrize(
    ("rows", "entry", "verdict", "fix"),
    [
        (
            [*ROWS, EMPTY, EMPTY, GONE],
            {},
            "3 of 13; training stops (on_bad_sample: error)",
            "correct the rows, or set `on_bad_sample: skip` and raise `data.max_bad_fraction` to "
            "0.2308 or more",
        ),
        ([*ROWS, EMPTY, EMPTY], {"on_bad_sample": "skip"}, None, None),
        (
            [*ROWS, EMPTY, EMPTY, EMPTY],
            {"on_bad_sample": "skip"},
            "3 of 13; training stops: more than data.max_bad_fraction=0.2 allows",
            "correct the rows, or raise `data.max_bad_fraction` to 0.2308 or more",
        ),
        (
            [EMPTY, EMPTY, EMPTY],
            {"on_bad_sample": "skip"},
            "3 of 3; training stops: none is left",
            "correct the rows, or take the source out of the mixture",
        ),
        ([EMPTY, GONE], {}, "2 of 2; training stops (on_bad_sample: error)", "correct the rows"),
        ([*ROWS, GONE], {}, "1 of 11; training stops (on_bad_sample: error)", None),
    ],
)
def test_what_training_would_do_about_bad_rows_is_said_and_the_exit_status(
    tmp_path: Path,
    settings: dict[str, Any],
    smolvlm_command: Any,
    write_yaml: Any,
    rows: list[Any],
    entry: dict[str, Any],
    verdict: str | None,
    fix: str | None,
) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"mixture": [{"path": "rows.jsonl", **entry}], "max_bad_fraction": 0.2}
    content = {"model": settings["model"], "data": data, "train": {"output_dir": "out"}}
    run = write_yaml(tmp_path / "run.yaml", content)
    prepared = smolvlm_command("prepare", run, "--json")
    assert prepared.status == (verdict is not None)
    (found,) = prepared.objects
    assert found["training_stops"] == (verdict is not None)
    assert sum(cause["rows"] for cause in found["bad_rows"]) == len(rows) - len(
        [row for row in rows if row in ROWS]
    )
    said = " ".join(prepared.messages.split())
    assert f"bad rows in rows: {verdict or '2 of 12; training skips them'}" in said
    first = found["bad_rows"][0]
    assert f"- {run.parent / first['where']}: {first['message']}" in said or (
        f"- {first['where']}: {first['message']}" in said
    )
    assert first["fix"] in said
    if fix is not None:
        assert prepared.messages.rstrip().endswith(f"fix: {fix}")
    if verdict is not None:
        trained = smolvlm_command("train", run)
        assert trained.status == 1
        assert first["message"] in " ".join(trained.messages.split())
        assert fix is None or trained.messages.rstrip().endswith(f"fix: {fix}")
    assert "fix: fix" not in prepared.messages
