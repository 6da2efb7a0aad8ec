"""Hostile data: whatever the bytes say, nothing but `SampleError` or `ConfigError` reaches the user."""

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smolvlm.datasets.mixture import load_mixture
from smolvlm.datasets.row_formats import to_conversation
from smolvlm.datasets.sources import SourceSpec
from smolvlm.datasets.tables import read_rows
from smolvlm.errors import ConfigError, SampleError

KEYS = st.sampled_from(
    [
        "conversations",
        "messages",
        "question",
        "answer",
        "answers",
        "texts",
        "image",
        "images",
        "from",
        "value",
        "role",
        "content",
        "type",
        "text",
        "user",
        "assistant",
        "path",
        "bytes",
        "video",
        "chosen",
        "rejected",
        "img",
    ]
)
WORDS = st.sampled_from(
    ("human", "gpt", "user", "assistant", "system", "image", "text", "<image>", "", "a.png", "..", "\0")
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | WORDS | st.text(max_size=6) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=16,
)
ENTRY_KEYS = st.sampled_from(
    [
        "json_path",
        "path",
        "hub",
        "split",
        "name",
        "modality",
        "sampling_strategy",
        "weight",
        "repeat",
        "columns",
        "seed",
        "on_bad_sample",
        "source",
        "what",
    ]
)
ENTRY_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers())
FUZZ = settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(row=VALUES)
def test_rows(row: Any) -> None:
    spec = SourceSpec(name="s", path=Path("/r"), label="r", format="json", media_root=Path("/pictures"))
    with contextlib.suppress(SampleError):
        to_conversation(row, spec=spec, where="r:1")


@FUZZ
@given(content=st.lists(st.dictionaries(ENTRY_KEYS, ENTRY_VALUES, max_size=5) | ENTRY_VALUES, max_size=3))
def test_mixtures(content: Any, tmp_path: Path) -> None:
    with contextlib.suppress(ConfigError):
        load_mixture(content, base_dir=tmp_path)


@FUZZ
@given(text=st.text(alphabet="{}[]:,-&*!|>'\"%@` \n\tab1", max_size=40) | st.binary(max_size=20))
def test_mixture_files(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "mixture.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with contextlib.suppress(ConfigError):
        load_mixture("mixture.yaml", base_dir=tmp_path)


@pytest.fixture(scope="module")
def parquet_bytes() -> bytes:
    rows = [
        {"question": f"q{number}", "answer": "x", "image": {"bytes": b"\x89PNG", "path": None}} for number in range(9)
    ]
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


@FUZZ
@given(data=st.data())
def test_parquet_bytes(data: st.DataObject, parquet_bytes: bytes, tmp_path: Path) -> None:
    damaged = bytearray(parquet_bytes)
    for _ in range(data.draw(st.integers(0, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "rows.parquet"
    path.write_bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    with contextlib.suppress(SampleError):
        table = read_rows(path, "parquet", label="rows.parquet")
        json.dumps([table[index] for index in range(len(table))], default=str)
