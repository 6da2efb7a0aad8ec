"""Hostile data: whatever the bytes say, nothing but `SampleError` or `ConfigError` reaches the
user."""

import contextlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from smolvlm.datasets.rows.formats import to_conversation
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.readers import json as json_rows
from smolvlm.datasets.rows.sources import RowFormat, SourceSpec
from smolvlm.datasets.rows.tables import read_rows
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
    (
        "human",
        "gpt",
        "user",
        "assistant",
        "system",
        "image",
        "text",
        "<image>",
        "",
        "a.png",
        "..",
        "\0",
    )
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats()
    | WORDS
    | st.text(max_size=6)
    | st.binary(max_size=4),
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
ENTRY_VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.lists(st.integers())
)
FUZZ = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(row=VALUES)
def test_rows(row: Any) -> None:
    spec = SourceSpec(
        name="s", path=Path("/r"), label="r", format="json", media_root=Path("/pictures")
    )
    with contextlib.suppress(SampleError):
        to_conversation(row, spec=spec, where="r:1")


@FUZZ
@given(
    content=st.lists(
        st.dictionaries(ENTRY_KEYS, ENTRY_VALUES, max_size=5) | ENTRY_VALUES, max_size=3
    )
)
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


MANY_DIGITS = "1" * 5000
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{own}: &{own} [{', '.join([f'*{inner}'] * 9)}]\n"
    for inner, own in zip("abcdefgh", "bcdefghi", strict=True)
)
STRANGE_MIXTURES = (
    *("[" * 5000, "{a: " * 3000, "".join(" " * depth + "-\n" for depth in range(2000))),
    *("&a [*a]", "- &a {path: a.json, columns: *a}", LAUGHS),
    *("!!timestamp x", "!!bool x", "!!int ''", "!!set {a, b}", "!!omap [a: 1]", "!!binary x"),
    *(
        f"- {{path: a.json, {key}: {value}}}"
        for key in ("weight", "seed")
        for value in (MANY_DIGITS, "0x" + "f" * 5000)
    ),
    *(f"- {{path: a.json, {key}: {'9' * 400}}}" for key in ("weight", "repeat", "source_fps")),
    *(
        f"- {{path: a.json, sampling_strategy: 'first:{amount}'}}"
        for amount in (MANY_DIGITS, "9" * 400 + "%")
    ),
    *(
        "- {path: '~nobody_of_this_name/a.json'}",
        f"- {{path: {'a' * 300}.json}}",
        '- {path: "a\\0.json"}',
    ),
    *(f"- {{path: 'x{{1..{MANY_DIGITS}}}.json'}}", f"- {{path: '{'a' * 300}*.json'}}"),
)


@pytest.mark.parametrize("text", STRANGE_MIXTURES, ids=[text[:40] for text in STRANGE_MIXTURES])
def test_mixtures_that_are_too_deep_too_large_or_strange(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[]")
    (tmp_path / "mixture.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_mixture("mixture.yaml", base_dir=tmp_path)
    assert "\n" in str(caught.value)


@pytest.mark.parametrize("name", ["~nobody_of_this_name/m.yaml", "a" * 300, "a\0.yaml"])
def test_mixtures_of_impossible_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_mixture(name, base_dir=tmp_path)


@pytest.mark.parametrize("kind", ["json", "jsonl", "tar"])
def test_a_number_of_very_many_digits_spoils_its_own_row(kind: RowFormat, tmp_path: Path) -> None:
    rows = [
        f'{{"question": "q", "answer": "x", "id": {number}}}' for number in ("1", MANY_DIGITS, "3")
    ]
    path = tmp_path / f"rows.{kind}"
    if kind == "tar":
        with tarfile.open(path, "w") as shard:
            for number, row in enumerate(rows):
                info = tarfile.TarInfo(f"{number}.json")
                info.size = len(row)
                shard.addfile(info, io.BytesIO(row.encode()))
    else:
        path.write_text("[" + ",\n".join(rows) + "]" if kind == "json" else "\n".join(rows))
    table = read_rows(path, kind, label="rows")
    assert (table[0]["id"], table[2]["id"]) == (1, 3)
    with pytest.raises(SampleError, match=r"(of more digits than are read|Exceeds the limit)"):
        table[1]


@FUZZ
@example(rows=[1.5, 6e34, -2.25e-7], chunk_bytes=1)
@given(
    rows=st.lists(
        VALUES.filter(lambda value: "bytes" not in repr(value)) | st.floats(allow_nan=False),
        max_size=5,
    ),
    chunk_bytes=st.integers(1, 9),
)
def test_a_list_is_cut_where_the_decoder_cuts_it(rows: list[Any], chunk_bytes: int) -> None:
    text = json.dumps(rows, default=repr)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_rows, "CHUNK_BYTES", chunk_bytes)
        cut = [
            json.loads(own)
            for _, own in json_rows.json_list(io.BytesIO(text.encode()), label="rows.json")
        ]
    assert repr(cut) == repr(json.loads(text))


@pytest.fixture(scope="module")
def parquet_bytes() -> bytes:
    rows = [
        {"question": f"q{number}", "answer": "x", "image": {"bytes": b"\x89PNG", "path": None}}
        for number in range(9)
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
