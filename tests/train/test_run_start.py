"""`run.json` holds every start that led to a checkpoint, and a start says what changed since the
one before."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smolvlm.datasets.packing.measured import SourceCount
from smolvlm.train import run_start
from smolvlm.train.run_start import begin_run, end_run
from tests.train.test_run_facts import FACTS

ON_GPU = replace(
    FACTS, device_type="cuda", device_name="A GPU", num_threads=None, autocast_dtype="bfloat16"
)
HINT = "note: faster in bfloat16"


@pytest.fixture(autouse=True)
def hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CPU this is, bfloat16 would be faster on it."""
    monkeypatch.setattr(run_start, "faster_in_bf16", lambda: [HINT])


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def test_a_fresh_start_is_written_whole(tmp_path: Path) -> None:
    assert begin_run(tmp_path, FACTS) == [FACTS.line()]
    content = read(tmp_path)
    assert content.pop("started_at").endswith("+00:00")
    assert content == {"step": 0, **FACTS.as_json(), "earlier": []}
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_start_that_resumes_keeps_those_before_it_in_order(tmp_path: Path) -> None:
    begin_run(tmp_path, FACTS)
    for step in (6, 12):
        begin_run(tmp_path, FACTS, resume=tmp_path / f"checkpoint-{step}")
    content = read(tmp_path)
    assert content["step"] == 12
    assert [start["step"] for start in content["earlier"]] == [0, 6]
    assert not any("earlier" in start for start in content["earlier"])


def test_sources_and_how_long_it_took_are_of_each_start(tmp_path: Path) -> None:
    count = SourceCount(
        name="a",
        num_rows=9,
        num_sampled=5,
        num_skipped=1,
        repeat=2.0,
        num_tokens=70,
        num_tiles=3,
        modalities={},
        skip_reasons={},
    )
    begin_run(tmp_path, FACTS, sources=[count])
    end_run(tmp_path, seconds=12.34)
    begin_run(tmp_path, FACTS, resume=tmp_path / "checkpoint-6")
    (first,) = read(tmp_path)["earlier"]
    assert first["sources"] == [
        {"name": "a", "num_rows": 9, "num_used": 4, "repeat": 2.0, "num_tokens": 70, "num_tiles": 3}
    ]
    assert first["seconds"] == 12.3
    assert not {"sources", "seconds"} & read(tmp_path).keys()


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_start_that_cannot_be_read_is_not_ended(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    end_run(tmp_path, seconds=1)
    assert (path.read_text() if path.exists() else None) == content


def test_a_start_from_the_beginning_forgets_those_before_it(tmp_path: Path) -> None:
    begin_run(tmp_path, FACTS)
    begin_run(tmp_path, FACTS)
    assert read(tmp_path)["earlier"] == []


def test_resuming_another_runs_checkpoint_keeps_that_runs_starts(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    begin_run(tmp_path / "first", ON_GPU)
    begin_run(tmp_path / "second", FACTS)
    begin_run(tmp_path / "second", FACTS, resume=tmp_path / "first" / "checkpoint-3")
    assert [start["device"]["name"] for start in read(tmp_path / "second")["earlier"]] == ["A GPU"]


def test_a_change_of_precision_is_said_with_what_keeps_it(tmp_path: Path) -> None:
    resume = tmp_path / "checkpoint-3"
    begin_run(tmp_path, ON_GPU)
    _, note = begin_run(tmp_path, FACTS, resume=resume, is_precision_open=True)
    assert note == (
        "note: the run computed in bfloat16 on cuda and goes on in float32 on cpu; "
        "train.bf16=true keeps the former precision"
    )
    _, note = begin_run(tmp_path, ON_GPU, resume=resume)
    assert note == (
        "note: the run computed in float32 on cpu and goes on in bfloat16 on cuda; "
        "train.bf16=false keeps the former precision"
    )
    assert begin_run(tmp_path, ON_GPU, resume=resume) == [ON_GPU.line()], "it is the same as before"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"earlier": 3, "kernels": {}}',
        '{"earlier": [1], "kernels": {}}',
        '{"earlier": []}',
    ],
)
def test_a_damaged_file_stops_no_run(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    _, note = begin_run(tmp_path, FACTS, resume=tmp_path / "checkpoint-3")
    assert (
        note
        == f"note: {tmp_path / 'run.json'} is damaged, so the run's earlier starts are not kept"
    )
    assert read(tmp_path)["earlier"] == []


def test_a_run_older_than_the_file_is_resumed(tmp_path: Path) -> None:
    assert begin_run(tmp_path, FACTS, resume=tmp_path / "checkpoint-3") == [FACTS.line()]
    assert read(tmp_path)["step"] == 3


@pytest.mark.parametrize(
    ("changes", "is_open", "expected"),
    [
        ({}, True, [HINT]),
        ({}, False, []),
        ({"autocast_dtype": "bfloat16"}, True, []),
        ({"weights_dtype": "bfloat16"}, True, []),
        ({"device_type": "mps"}, True, []),
    ],
)
def test_bfloat16_is_advised_to_a_run_that_begins_in_float32_on_a_cpu_and_leaves_it_open(
    tmp_path: Path, changes: dict[str, Any], is_open: bool, expected: list[str]
) -> None:
    assert begin_run(tmp_path, replace(FACTS, **changes), is_precision_open=is_open)[1:] == expected


def test_it_is_not_advised_amid_a_run(tmp_path: Path) -> None:
    resume = tmp_path / "checkpoint-3"
    assert begin_run(tmp_path, FACTS, resume=resume, is_precision_open=True) == [FACTS.line()]
