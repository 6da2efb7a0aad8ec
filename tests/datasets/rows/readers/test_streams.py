"""Compressed files of rows: the same rows, and files that are damaged, cut or swell."""

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.config.data import DataConfig
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.readers import conversion, streams
from smolvlm.datasets.rows.row_table import RowTable
from smolvlm.datasets.rows.sources import MAX_ROW_BYTES
from smolvlm.datasets.rows.tables import open_table
from smolvlm.errors import ConfigError, SampleError

ROWS = [{"question": f"{number}?", "answer": "yes"} for number in range(50)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = "question,answer\n" + "".join(",".join(row.values()) + "\n" for row in ROWS)
TEXTS = {"json": json.dumps(ROWS), "jsonl": LINES, "ndjson": LINES, "csv": CSV}
TEXTS["tsv"] = CSV.replace(",", "\t")


def compressed(data: bytes, ending: str) -> bytes:
    if ending == "gz":
        return gzip.compress(data)
    return pa.Codec("zstd").compress(data).to_pybytes() if ending.startswith("zst") else data


def table_of(path: Path) -> RowTable:
    (spec,) = load_mixture([{"path": path.name}], base_dir=path.parent)
    return open_table(spec)


def rows_of(table: RowTable) -> list[Any]:
    return [table[index] for index in range(len(table))]


@pytest.mark.parametrize("limit", [-1, 8 << 20])
@pytest.mark.parametrize("ending", ["gz", "zst", "zstd"])
@pytest.mark.parametrize("name", [*TEXTS])
def test_compressed_rows_are_the_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, ending: str, limit: int
) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(conversion, "IN_MEMORY_BYTES", limit)
    path = tmp_path / f"rows.{name}.{ending}"
    path.write_bytes(compressed(TEXTS[name].encode(), ending))
    (spec,) = load_mixture([{"path": path.name}], base_dir=tmp_path)
    assert spec.name == "rows"
    table = table_of(path)
    assert rows_of(table) == ROWS
    assert table.where(49) == f"{path.name}:50"


def test_plain_and_compressed_parts_are_one_source(tmp_path: Path) -> None:
    (tmp_path / "p-0.jsonl").write_text(LINES)
    (tmp_path / "p-1.jsonl.gz").write_bytes(gzip.compress(LINES.encode()))
    (spec,) = load_mixture([{"path": "p-*"}], base_dir=tmp_path)
    assert rows_of(open_table(spec)) == ROWS * 2


@settings(deadline=None, max_examples=40)
@given(
    values=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9)), min_size=1),
    ending=st.sampled_from(["gz", "zst"]),
)
def test_any_lines_are_read_the_same(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], ending: str
) -> None:
    folder = tmp_path_factory.mktemp("law")
    data = "".join(json.dumps(value) + "\n" for value in values).encode()
    (folder / "a.jsonl").write_bytes(data)
    (folder / f"a.jsonl.{ending}").write_bytes(compressed(data, ending))
    plain, packed = (rows_of(table_of(folder / f"a.jsonl{own}")) for own in ("", f".{ending}"))
    assert plain == packed == values


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_damaged_file_is_named(tmp_path: Path, ending: str) -> None:
    data = compressed(LINES.encode(), ending)
    path = tmp_path / f"a.jsonl.{ending}"
    for broken in (b"", data[:9], data[: len(data) // 2], data[:-3], b"plain text\n"):
        path.write_bytes(broken)
        with pytest.raises(SampleError, match=rf"a\.jsonl\.{ending}: .*\n  fix: copy it again"):
            table_of(path)


def test_a_file_that_swells_is_not_read_on(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 1_000_000))
    with (
        patch.object(streams, "FREE_BYTES", 1000),
        pytest.raises(SampleError, match=r"a\.jsonl\.gz: decompresses to more than 200 times"),
    ):
        table_of(tmp_path / "a.jsonl.gz")


@pytest.mark.parametrize("ending", ["", ".gz", ".zst"])
@pytest.mark.parametrize("num_bytes", [1001, 4000])
def test_a_line_above_the_limit_is_a_bad_row_and_its_neighbours_are_read(
    tmp_path: Path, ending: str, num_bytes: int
) -> None:
    long = json.dumps({"a": "x" * (num_bytes - 9)}).encode()
    assert len(long) == num_bytes
    (tmp_path / f"a.jsonl{ending}").write_bytes(
        compressed(b'{"a": 1}\n' + long + b'\n{"a": 3}\n' + long, ending[1:])
    )
    (spec,) = load_mixture([{"path": f"a.jsonl{ending}"}], base_dir=tmp_path)
    table = open_table(replace(spec, max_row_bytes=1000))
    assert len(table) == 4
    assert [table[0], table[2]] == [{"a": 1}, {"a": 3}]
    for row in (1, 3):
        with pytest.raises(SampleError, match=r"more than data\.max_row_bytes = 1,000") as raised:
            table[row]
        assert raised.value.kind == "too_large_row"
        assert table.where(row) == f"a.jsonl{ending}:{row + 1}"
    errors = [value for value in table.values("a") if isinstance(value, SampleError)]
    assert len(errors) == 2


def test_whether_it_is_kept_follows_the_decompressed_size(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"x" * 1000))
    assert path.stat().st_size < 100
    assert not streams.is_longer_than(path, 1000, label="a")
    assert streams.is_longer_than(path, 999, label="a")


@pytest.mark.parametrize("name", ["s.tar.gz", "t.parquet.zst"])
def test_what_is_read_in_any_order_cannot_be_compressed(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no known format of rows; decompress it"):
        table_of(tmp_path / name)


def test_the_default_limit_of_a_row_is_the_settings() -> None:
    assert DataConfig.model_fields["max_row_bytes"].default == MAX_ROW_BYTES
