"""Rows handed over by a program: one digest for the same content, files that are read like any
other."""

import io
import json
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from smolvlm import api
from smolvlm.datasets.rows.conversations import open_sources
from smolvlm.datasets.rows.memory import keep_rows
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.errors import ConfigError, SampleError
from smolvlm.home import memory_dir, memory_rows_file
from smolvlm.media.images import open_rgb
from smolvlm.records import Conversation


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))


def pixels(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def conversations(entry: dict[str, str]) -> list[Conversation]:
    (source,) = open_sources(load_mixture([entry], base_dir=Path.cwd()))
    return list(source.all_rows())


@pytest.mark.parametrize("kind", ["array", "image", "bytes", "struct", "path"])
def test_a_picture_in_every_form_is_read_back_to_the_bit(kind: str, tmp_path: Path) -> None:
    (tmp_path / "own.png").write_bytes(encoded(pixels()))
    forms: dict[str, Any] = {
        "array": pixels(),
        "image": Image.fromarray(pixels()),
        "bytes": encoded(pixels()),
        "struct": {"bytes": encoded(pixels()), "path": "gone.png"},
        "path": tmp_path / "own.png",
    }
    (row,) = conversations(
        keep_rows([{"question": "What?", "answer": "Noise.", "image": forms[kind]}])
    )
    (image,) = row.media
    assert np.array_equal(np.asarray(open_rgb(image)), pixels())  # type: ignore[arg-type]
    assert row.where.startswith("memory:")


def test_the_digest_is_of_the_content_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {"question": "What?", "answer": "Noise.", "image": pixels()},
        {"question": "1?", "answer": "2"},
    ]
    first = keep_rows(rows)
    again = keep_rows(iter([{**row} for row in rows]))
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "elsewhere"))
    moved = keep_rows(rows, name="another")
    assert first["memory"] == again["memory"] == moved["memory"]
    assert str(tmp_path / "elsewhere") in memory_rows_file(moved["memory"]).read_text()
    changes: list[list[dict[str, Any]]] = [
        rows[::-1],
        rows[:1],
        [*rows, rows[0]],
        [{**rows[0], "image": pixels(1)}, rows[1]],
        [{**rows[0], "answer": "noise."}, rows[1]],
    ]
    digests = {keep_rows(changed)["memory"] for changed in changes}
    assert len(digests | {first["memory"]}) == len(changes) + 1


def test_a_data_set_of_the_hubs_library_is_rows(tmp_path: Path) -> None:
    (tmp_path / "own.png").write_bytes(encoded(pixels()))
    columns = {"question": ["What?"], "answer": ["Noise."], "image": [str(tmp_path / "own.png")]}
    own = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())
    (row,) = conversations(keep_rows(own))
    (image,) = row.media
    assert np.array_equal(np.asarray(open_rgb(image)), pixels())  # type: ignore[arg-type]


def test_relative_paths_start_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.png").write_bytes(encoded(pixels()))
    monkeypatch.chdir(tmp_path)
    entry = keep_rows([{"question": "What?", "answer": "Noise.", "image": "own.png"}])
    monkeypatch.chdir(tmp_path.parent)
    (row,) = conversations(entry)
    assert np.array_equal(np.asarray(open_rgb(row.media[0])), pixels())  # type: ignore[arg-type]


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(max_size=30),
    number=st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none(),
)
def test_values_come_back_as_they_were(text: str, number: Any) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return
    entry = keep_rows([{"question": text, "answer": "x", "id": [number, {"deep": text}]}])
    (line,) = memory_rows_file(entry["memory"]).read_text(encoding="utf-8").split("\n")[:-1]
    assert json.loads(line) == {"question": text, "answer": "x", "id": [number, {"deep": text}]}


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], "no rows"),
        (["What?"], "a row is a mapping, not str"),
        ([{"question": "a"}, {"question": {1, 2}}], "memory:2: a value of type set"),
        ([{"image": np.zeros((2, 2), np.float32)}], "a value of type ndarray"),
    ],
)
def test_what_no_file_could_hold_is_refused_with_its_row(rows: list[Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        keep_rows(rows)
    assert not list(memory_dir().glob("*/rows.jsonl"))


@pytest.mark.parametrize("digest", ["../../etc", "0" * 31, "0" * 32, "G" * 32])
def test_a_digest_names_kept_rows_and_nothing_else(digest: str) -> None:
    with pytest.raises(ConfigError, match="hand the same rows over again"):
        load_mixture([{"memory": digest}], base_dir=Path.cwd())


def test_messages_call_rows_as_the_program_that_handed_them_over() -> None:
    good, bad = {"question": "a", "answer": "b"}, {"question": "a", "answer": ""}
    rows = [good, good, bad]
    entries = [
        keep_rows(rows, name="rows"),
        keep_rows([*rows, bad], name="rows"),
        {"memory": keep_rows(rows)["memory"]},
    ]
    sources = open_sources(load_mixture(entries, base_dir=Path.cwd()))
    assert [source.table.where(2) for source in sources] == ["rows:3", "rows#2:3", "mixture[2]:3"]
    (grouped,) = load_mixture({"some": [entries[2]]}, base_dir=Path.cwd())
    assert grouped.label == "mixture.some[0]"
    for source, where in zip(sources, ("rows:3", "rows#2:3", "mixture[2]:3"), strict=True):
        with pytest.raises(SampleError, match=re.escape(f"{where}: the answer is empty")):
            source.all_rows()[2]


def test_the_python_api_names_its_rows_and_no_digest() -> None:
    config = api.load_config(
        {"model": {"path": "o/m"}, "data": {}, "train": {"output_dir": "out"}},
        rows=[{"question": "a", "answer": "b"}],
        eval_rows=[{"question": "c", "answer": "d"}],
    )
    for mixture, where in (("mixture", "rows:1"), ("eval_mixture", "eval_rows:1")):
        specs = load_mixture(getattr(config.data, mixture), base_dir=Path.cwd())
        (source,) = open_sources(specs)
        assert source.all_rows()[0].where == where
