"""Parquet files that hold little and come to much: refused by name, before they are expanded."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.rows.readers import parquet_pages, streams
from smolvlm.datasets.rows.readers.arrow import ArrowRows
from smolvlm.datasets.rows.readers.conversion import arrow_rows
from smolvlm.datasets.rows.tables import read_rows
from smolvlm.errors import SampleError

KB = 1000
LONG = "a" * (100 * KB)


def rows_of(path: Path, **limits: int) -> ArrowRows:
    return arrow_rows(path, "parquet", label="a.parquet", **limits)


def written(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    pq.write_table(pa.table(columns), path, compression="zstd", **options)
    return path


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file come to a megabyte, and a page to 200 kB."""
    monkeypatch.setattr(streams, "FREE_BYTES", 1000 * KB)
    monkeypatch.setattr(streams, "MAX_SWELLING", 2)
    monkeypatch.setattr(parquet_pages, "MAX_PAGE_BYTES", 200 * KB)
    monkeypatch.setattr(parquet_pages, "MAX_SHARED_BYTES", 1000 * KB)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "brotli", "lz4"])
@pytest.mark.parametrize("use_dictionary", [True, False])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.usefixtures("small_limits")
def test_a_large_page_is_refused_by_its_header(
    tmp_path: Path, compression: str, use_dictionary: bool, version: str
) -> None:
    pq.write_table(
        pa.table({"answer": ["x"], "question": ["a" * 300 * KB]}),
        path := tmp_path / "a.parquet",
        compression=compression,
        use_dictionary=use_dictionary,
        data_page_version=version,
    )
    with (
        patch("pyarrow.parquet.ParquetFile", side_effect=AssertionError("pages are read")),
        pytest.raises(SampleError, match=r"^a\.parquet, row group 1: a page of column `question`"),
    ):
        rows_of(path, max_row_bytes=10 * KB)


MANY: dict[str, Callable[[], dict[str, Any]]] = {
    "a value that many rows share": lambda: {"question": [LONG] * 2000},
    "a value that many items of a list share": lambda: {"question": [[LONG] * 2000]},
    "numbers": lambda: {"question": pa.array([[0] * 200_000], pa.list_(pa.int64()))},
    "nothing": lambda: {"question": pa.nulls(200_000)},
    "values of a fixed length": lambda: {
        "question": pa.array([b"a" * 100 * KB] * 2000, pa.binary(100 * KB))
    },
}


@pytest.mark.parametrize("name", [*MANY])
@pytest.mark.usefixtures("small_limits")
def test_a_file_that_comes_to_many_times_its_size_is_refused(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / "a.parquet", MANY[name]())
    assert path.stat().st_size < 100 * KB
    with pytest.raises(SampleError, match=r"times its size|a page of column `question"):
        rows_of(path, max_row_bytes=10_000 * KB)


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.usefixtures("small_limits")
def test_values_that_share_their_beginning_are_read_in_small_pieces_or_refused(
    tmp_path: Path, is_nested: bool
) -> None:
    column = "question.list.element" if is_nested else "question"
    path = written(
        tmp_path / "a.parquet",
        {"question": [[LONG] * 200] if is_nested else [LONG] * 200},
        use_dictionary=False,
        column_encoding={column: "DELTA_BYTE_ARRAY"},
    )
    said = r"DELTA_BYTE_ARRAY(.|\n)*another encoding" if is_nested else "2 times its size"
    with pytest.raises(SampleError, match=said):
        rows_of(path)


def test_a_row_above_the_limit_is_passed_over_and_its_neighbours_are_read(tmp_path: Path) -> None:
    values = ["a", LONG, "b", [LONG] * 3, "c"]
    texts = [value if isinstance(value, str) else "d" for value in values]
    lists = [value if isinstance(value, list) else [] for value in values]
    path = written(tmp_path / "a.parquet", {"question": texts, "more": lists})
    table = read_rows(path, "parquet", label="a.parquet")
    assert [table[row]["question"] for row in range(5)] == texts  # pyright: ignore[reportIndexIssue]
    rows = rows_of(path, max_row_bytes=50 * KB)
    assert len(rows) == 5
    assert [rows.value(0, row) for row in (0, 2, 4)] == ["a", "b", "c"]
    for row in (1, 3):
        with pytest.raises(SampleError, match=r"data\.max_row_bytes = 50,000"):
            rows.value(0, row)


def test_headers_that_lie_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", {"question": ["a" * KB] * 3}, use_dictionary=False)
    whole = path.read_bytes()
    offset = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    for damaged in (b"\x15\x00\x15\x01", b"\xff" * 8, b"\x00", b"\x15\x00\x19\x00"):
        path.write_bytes(whole[:offset] + damaged + whole[offset + len(damaged) :])
        with pytest.raises(SampleError, match="row group 1: a page of column `question` has"):
            rows_of(path)


@settings(deadline=None, max_examples=30)
@given(
    values=st.lists(st.lists(st.text(max_size=5) | st.none(), max_size=4) | st.none(), min_size=1),
    use_dictionary=st.booleans(),
    version=st.sampled_from(["1.0", "2.0"]),
    page_bytes=st.integers(1, 100),
)
def test_any_file_that_arrow_reads_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[Any],
    use_dictionary: bool,
    version: str,
    page_bytes: int,
) -> None:
    path = tmp_path_factory.mktemp("law") / "a.parquet"
    flat = [None if value is None else "".join(map(str, value)) for value in values]
    pq.write_table(
        pa.table(
            {"flat": pa.array(flat, pa.string()), "n": pa.array(values, pa.list_(pa.string()))}
        ),
        path,
        use_dictionary=use_dictionary,
        data_page_version=version,
        data_page_size=page_bytes,
        row_group_size=3,
    )
    try:
        assert pq.read_table(path).num_rows == len(values)
    except pa.ArrowException:  # pyarrow 26 writes no page for an empty list in a page of one byte
        with pytest.raises(SampleError, match="can be read: its columns are not of one length"):
            rows_of(path)
        return
    rows = rows_of(path)
    assert [rows.value(0, row) for row in range(len(rows))] == flat
    assert [rows.value(1, row) for row in range(len(rows))] == values


def test_a_column_of_a_row_group_that_the_schema_lacks_is_damage(tmp_path: Path) -> None:
    """One letter of a column's name, changed in the row group's description alone."""
    path = written(tmp_path / "a.parquet", {"question": ["what"] * 50, "answer": ["x"] * 50})
    data = path.read_bytes()
    places = [place for place in range(len(data)) if data.startswith(b"question", place)]
    refused = 0
    for place in places:
        path.write_bytes(data[:place] + b"quertion" + data[place + 8 :])
        try:
            arrow_rows(path, "parquet", label="a.parquet", max_row_bytes=1 << 20)
        except SampleError as error:
            refused += "description of column `question` is damaged" in str(error)
    assert refused, "one of the places is the row group's"


FOOTERS = """
import sys
from pathlib import Path
import pyarrow.parquet
from smolvlm.datasets.rows.readers.conversion import arrow_rows
from smolvlm.errors import SampleError

path = Path(sys.argv[1])
data = path.read_bytes()
size = int.from_bytes(data[-8:-4], "little")
refused = 0
for place in range(len(data) - 8 - size, len(data) - 8):
    for change in (1, 0x10):
        changed = bytearray(data)
        changed[place] ^= change
        path.write_bytes(changed)
        try:
            if sys.argv[2] == "asked of pyarrow":
                footer = pyarrow.parquet.read_metadata(path)
                [footer.row_group(0).column(place) for place in range(footer.num_columns)]
            else:
                arrow_rows(path, "parquet", label="a.parquet", max_row_bytes=1 << 20)
        except SampleError if sys.argv[2] == "read" else (ValueError, OSError):
            refused += 1
print(refused)
"""
TURNS = [{"role": "user", "text": "What?"}, {"role": "assistant", "text": "x"}]


@pytest.mark.parametrize("how", ["read", "asked of pyarrow"])
@pytest.mark.parametrize(
    "columns",
    [
        {"messages": [TURNS] * 9, "names": [["a"], []] * 4 + [["b"]]},
        {"question": ["what"] * 9, "score": [0.5] * 9, "number": [3] * 9, "right": [True] * 9},
    ],
    ids=["texts", "numbers"],
)
def test_no_change_of_a_footer_ends_the_process(
    tmp_path: Path, columns: dict[str, list[Any]], how: str
) -> None:
    """Asked of pyarrow, columns whose numbers contradict each other abort it."""
    path = written(tmp_path / "a.parquet", columns)
    done = subprocess.run(
        [sys.executable, "-c", FOOTERS, str(path), how], capture_output=True, text=True, timeout=300
    )
    if how == "asked of pyarrow":
        assert done.returncode == -signal.SIGABRT, "pyarrow ends no process any more: ask it again"
    else:
        assert done.returncode == 0, done.stderr[-300:]
        assert int(done.stdout) > 100
