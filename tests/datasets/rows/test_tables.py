"""Files of rows: three formats, the same rows; row numbers; files that are broken."""

import contextlib
import io
import json
import pickle
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.readers import conversion
from smolvlm.datasets.rows.readers import json as json_rows
from smolvlm.datasets.rows.readers.json import json_lines, json_list
from smolvlm.datasets.rows.row_table import RowTable
from smolvlm.datasets.rows.tables import open_table, read_rows
from smolvlm.errors import SampleError

ROWS = [
    {"question": "Schön?", "n": 1},
    {"question": "two \u2028 lines", "n": 2},
    {"question": "", "n": 3},
]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def table_of(path: Path) -> RowTable:
    (spec,) = load_mixture([{"json_path": path.name}], base_dir=path.parent)
    return read_rows(spec.path, spec.format, label=spec.label)


@pytest.fixture(params=["in memory", "mapped"])
def way(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Small files are converted in memory, large ones to a file of the cache folder: both give the
    same rows."""
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    if request.param == "mapped":
        monkeypatch.setattr(conversion, "IN_MEMORY_BYTES", -1)
    return request.param


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.ndjson", "rows.parquet"])
def test_every_format_gives_the_same_rows_and_numbers(way: str, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=2)
    elif path.suffix == ".json":
        path.write_text(json.dumps(ROWS, indent=2), encoding="utf-8-sig")
    else:
        path.write_text(
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8"
        )
    table = table_of(path)
    assert [table[index] for index in range(len(table))] == ROWS
    assert [table.where(index) for index in range(len(table))] == [
        f"{name}:1",
        f"{name}:2",
        f"{name}:3",
    ]
    assert list((tmp_path / "home").glob("rows/rows-*.arrow")) != [] or way == "in memory"
    copy: RowTable = pickle.loads(pickle.dumps(table))
    assert [copy[index] for index in range(len(copy))] == ROWS
    with pytest.raises(IndexError):
        table[3]


def test_a_file_that_changed_is_converted_again_and_one_that_did_not_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(conversion, "IN_MEMORY_BYTES", -1)
    path = tmp_path / "rows.json"
    path.write_text("[1, 2]")
    assert len(table_of(path)) == 2
    with monkeypatch.context() as patched:
        patched.setattr(
            conversion, "json_list", lambda *_args, **_kwargs: pytest.fail("converted again")
        )
        assert len(table_of(path)) == 2
    path.write_text("[1, 2, 3]")
    assert [table_of(path)[index] for index in range(3)] == [1, 2, 3]


def test_a_conversion_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(conversion, "IN_MEMORY_BYTES", -1)
    (tmp_path / "rows.json").write_text("[1, 2")
    with pytest.raises(SampleError):
        table_of(tmp_path / "rows.json")
    assert list((tmp_path / "home" / "rows").iterdir()) == []


def test_many_batches_are_one_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "BATCH_BYTES", 40)
    rows = [{"n": number} for number in range(50)]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "rows.parquet")
    for name in ("rows.jsonl", "rows.parquet"):
        table = table_of(tmp_path / name)
        assert [table[index] for index in range(len(table))] == rows


def test_a_row_of_json_lines_is_numbered_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"a": 1}\r\n\n  \n{"a": 2}')
    table = table_of(path)
    assert [(table[index], table.where(index)) for index in range(len(table))] == [
        ({"a": 1}, "rows.jsonl:2"),
        ({"a": 2}, "rows.jsonl:5"),
    ]


def test_parquet_keeps_bytes(tmp_path: Path) -> None:
    row = {"image": {"bytes": b"\xff\xd8", "path": "x.jpg"}, "raw": b"\x00"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "rows.parquet")
    assert table_of(tmp_path / "rows.parquet")[0] == row


def streamed(chunk: int) -> Any:
    """Make the reader see a file in pieces of so many bytes."""
    return patch.object(json_rows, "CHUNK_BYTES", chunk)


@settings(deadline=None)
@given(
    values=st.lists(JSON_VALUES, max_size=5),
    indent=st.sampled_from([None, 1]),
    chunk=st.integers(1, 40),
)
def test_a_list_is_cut_into_its_elements_however_it_streams(
    values: list, indent: int | None, chunk: int
) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=False).encode("utf-8", "surrogatepass")
    with streamed(chunk):
        try:
            data.decode()
        except UnicodeDecodeError:
            with pytest.raises(SampleError, match="is not UTF-8 text"):
                list(json_list(io.BytesIO(data), label="x"))
            return
        found = list(json_list(io.BytesIO(data), label="x"))
    assert [json.loads(text) for _, text in found] == values
    assert [number for number, _ in found] == list(range(1, len(values) + 1))


@settings(deadline=None)
@given(values=st.lists(JSON_VALUES, max_size=5))
def test_lines_are_rows(values: list) -> None:
    data = "\n".join(json.dumps(value) for value in values).encode()
    found = list(json_lines(io.BytesIO(data)))
    assert [json.loads(text) for _, text in found if isinstance(text, bytes)] == values
    assert [number for number, _ in found] == list(range(1, len(values) + 1))


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_an_error_names_its_line_and_column_in_the_file(chunk: int) -> None:
    data = b'[{"a": 1},\n {"a": 22},\n\n  {"b": oops}]'
    with (
        streamed(chunk),
        pytest.raises(SampleError, match=r"^x:3: not JSON: Expecting value \(line 4, column 9\)"),
    ):
        list(json_list(io.BytesIO(data), label="x"))


@settings(deadline=None, max_examples=300)
@given(data=st.binary(max_size=60), chunk=st.integers(1, 9), opened=st.booleans())
def test_no_bytes_do_more_than_a_sample_error(data: bytes, chunk: int, opened: bool) -> None:
    with streamed(chunk), contextlib.suppress(SampleError):
        list(json_list(io.BytesIO(b"[" * opened + data), label="x"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.json",
            '{"a": 1}\n{"a": 2}',
            r"a\.json: the file is not a JSON list\n  fix: one object a line .* \.jsonl",
        ),
        ("a.json", '[{"a": 1}, {"a": ', r"a\.json:2: not JSON: .*\n  fix: .*cut short"),
        ("a.json", '[{"a": 1},]', r"a\.json:2: not JSON"),
        ("a.json", '[{"a": 1}', r"a\.json:1: the list ends without its closing bracket"),
        ("a.json", '[{"a": 1} {"a": 2}]', r"a\.json:1: no comma after the row"),
        ("a.json", '[{"a": 1}] x', r"a\.json: text after the list's end"),
        ("a.json", "[" * 100_000, r"a\.json:1: nested too deeply to read"),
        ("a.json", "[ ]", r"a\.json: the file has no rows\n  fix: take the source out"),
        ("a.jsonl", "\n\n", r"a\.jsonl: the file has no rows"),
        ("a.json", "", r"a\.json: the file is not a JSON list"),
        ("a.parquet", "PAR1 not at all", r"a\.parquet: not a Parquet file: "),
    ],
)
def test_a_broken_file_is_named_with_the_row_where_it_breaks(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SampleError, match=message):
        table_of(tmp_path / name)


def test_a_broken_line_is_an_error_of_its_own_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": \n' + "[" * 100_000)
    table = table_of(tmp_path / "a.jsonl")
    assert table[0] == {"a": 1}
    with pytest.raises(SampleError, match=r"^not JSON: Expecting value \(line 1, column 7\)"):
        table[1]
    with pytest.raises(SampleError, match=r"^nested too deeply"):
        table[2]


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'["\xff"]')
    with pytest.raises(
        SampleError, match=r"a\.json: is not UTF-8 text \(byte 2\)\n  fix: save it as UTF-8"
    ):
        table_of(tmp_path / "a.json")


def test_a_file_that_vanished_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1]")
    (spec,) = load_mixture([{"json_path": "a.json"}], base_dir=tmp_path)
    path.unlink()
    with pytest.raises(SampleError, match=r"a\.json: cannot be read: No such file"):
        read_rows(spec.path, spec.format, label=spec.label)


def write_part(path: Path, rows: list) -> None:
    if path.suffix == ".parquet":
        schema = pyarrow.schema([("n", pyarrow.int64())])
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema), path)
    elif path.suffix == ".tar":
        with tarfile.open(path, "w") as shard:
            for number, row in enumerate(rows):
                data = json.dumps(row).encode()
                info = tarfile.TarInfo(f"{number}.json")
                info.size = len(data)
                shard.addfile(info, io.BytesIO(data))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.parametrize("ending", ["json", "jsonl", "parquet", "tar"])
def test_an_empty_part_is_passed_over_and_named(tmp_path: Path, ending: str) -> None:
    parts = ([], [{"n": 1}], [], [{"n": 2}])
    for number, rows in enumerate(parts):
        write_part(tmp_path / f"p-{number}.{ending}", rows)
    (spec,) = load_mixture([{"path": f"p-*.{ending}"}], base_dir=tmp_path)
    table = open_table(spec)
    assert [table[index] for index in range(len(table))] == [{"n": 1}, {"n": 2}]
    assert table.where(1) == f"p-3.{ending}:1"
    assert table.empty_files == (f"p-0.{ending}", f"p-2.{ending}")
    for number in (1, 3):
        write_part(tmp_path / f"p-{number}.{ending}", [])
    with pytest.raises(SampleError, match=r"none of its 4 files has a row\n  fix: check"):
        open_table(spec)


@pytest.mark.parametrize("chunk", [7, 100, 1 << 20])
@pytest.mark.parametrize("size", [2000, 100_000])
def test_a_row_of_a_list_above_the_limit_is_named(chunk: int, size: int) -> None:
    data = json.dumps([{"a": 1}, {"a": "x" * size}, {"a": 3}]).encode()
    with streamed(chunk):
        rows = json_list(io.BytesIO(data), label="x", max_row_bytes=1000)
        assert next(rows) == (1, b'{"a": 1}')
        with pytest.raises(SampleError, match=r"^x:2: .*data\.max_row_bytes = 1,000"):
            next(rows)


def test_rows_behind_a_large_one_are_read_where_they_lie() -> None:
    values = [{"a": "x" * 5000}, *({"a": n} for n in range(300)), {"a": "y" * 9000}, {"b": "\n"}]
    data = json.dumps(values, indent=1).encode()
    with streamed(64):
        assert [json.loads(text) for _, text in json_list(io.BytesIO(data), label="x")] == values
        broken = data.replace(b'"b":', b"oops")
        line = broken[: broken.index(b"oops")].count(b"\n") + 1
        with pytest.raises(SampleError, match=rf"not JSON: .* \(line {line}, column 3\)"):
            list(json_list(io.BytesIO(broken), label="x"))


@pytest.mark.parametrize("values", ["[],", "{},", "0,", '{"a":[0]},'])
def test_a_row_of_very_many_values_is_refused(values: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_rows, "_COUNTED_BYTES", 100)
    monkeypatch.setattr(json_rows, "MAX_ROW_VALUES", 1000)
    json_rows.read_json("[" + values * 100 + "0]")
    for text in ("[" + values * 2000 + "0]", ("[" + values * 2000 + "0]").encode()):
        with pytest.raises(SampleError, match="more than 1,000 values"):
            json_rows.read_json(text)


def test_a_saved_row_above_the_limit_is_a_bad_row(tmp_path: Path) -> None:
    import datasets

    texts = ["a", "x" * 2000, "c"]
    datasets.Dataset.from_dict({"question": texts}).save_to_disk(tmp_path / "saved")
    (spec,) = load_mixture([{"path": "saved"}], base_dir=tmp_path)
    table = open_table(replace(spec, max_row_bytes=1000))
    assert [table[0], table[2]] == [{"question": "a"}, {"question": "c"}]
    with pytest.raises(SampleError, match=r"data\.max_row_bytes = 1,000"):
        table[1]
    read = list(table.values("question"))
    assert [read[0], read[2]] == ["a", "c"]
    assert isinstance(read[1], SampleError)
