"""CSV and TSV: cells as text, lists as JSON, and files that are no table."""

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.readers.csv import CsvFile
from smolvlm.datasets.rows.tables import open_table
from smolvlm.errors import SampleError

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)


def rows_of(path: Path, text: str | bytes, **entry: Any) -> list[Any]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (spec,) = load_mixture([{"path": path.name, **entry}], base_dir=path.parent)
    table = open_table(spec)
    return [table[index] for index in range(len(table))]


def test_every_cell_is_text_and_an_empty_one_is_absent(tmp_path: Path) -> None:
    text = '\ufeffid,question,answer\r\n007,"one, ""two""\nthree",\r\n\r\n1.50,true,null\r\n'
    assert rows_of(tmp_path / "a.csv", text) == [
        {"id": "007", "question": 'one, "two"\nthree', "answer": None},
        {"id": "1.50", "question": "true", "answer": "null"},
    ]


@pytest.mark.parametrize(
    ("name", "separator"), [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t")]
)
def test_the_first_line_says_what_separates(tmp_path: Path, name: str, separator: str) -> None:
    text = "\n".join(separator.join(row) for row in (["question", "answer"], ["q", "a"]))
    assert rows_of(tmp_path / name, text) == [{"question": "q", "answer": "a"}]


def test_long_cells_are_read(tmp_path: Path) -> None:
    limit = csv.field_size_limit()
    rows = rows_of(tmp_path / "a.csv", f"a,b\n{'x' * 3 * limit},y\n")
    assert len(rows[0]["a"]) == 3 * limit
    assert csv.field_size_limit() == limit


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "a,b\n1,2\n1,2,3\n", r"a\.csv:2: 3 cells where the first line names 2 columns"),
        ("a.csv", "a,b\n1\n", r"a\.csv:1: 1 cells where"),
        ("a.csv", "a,b,a\n", r"a\.csv: 2 columns are named 'a'"),
        ("a.csv", ",a\n0,x\n", r"column 1 of the first line has no name\n  fix: .*index=False"),
        ("a.csv", "a,b;c\n", r"may be separated by comma and semicolon\n  fix: put names"),
        ("a.csv", "a|b\n1|2\n", r"the first line is one column, 'a\|b'\n  fix: separate"),
        ("a.tsv", "a,b\n1,2\n", r"the first line is one column, 'a,b'\n  fix: separate"),
        ("a.csv", 'a,b\n1,"2\n', r"a\.csv:1: not CSV: unexpected end of data"),
        ("a.csv", 'a,b\n1,"2"x\n', r"a\.csv:1: not CSV: "),
        ("a.csv", b"a,b\n\xff,2\n", r"is not UTF-8 text \(line 2, byte 1\)"),
        ("a.csv", "a,b\n", r"a\.csv: the file has no rows"),
        ("a.csv", "", r"a\.csv: the file has no rows"),
    ],
)
def test_what_is_no_table_is_named(
    tmp_path: Path, name: str, text: str | bytes, message: str
) -> None:
    with pytest.raises(SampleError, match=message):
        rows_of(tmp_path / name, text)


@settings(deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), max_size=6), separator=st.sampled_from(",;\t"))
def test_what_a_writer_writes_is_read(rows: list[tuple[str, str]], separator: str) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=csv.QUOTE_ALL)
    writer.writerow(("a", "b"))
    writer.writerows(rows)
    header = text.getvalue().replace('"a"', "a", 1).replace('"b"', "b", 1)
    file = CsvFile(io.BytesIO(header.encode()), is_tsv=separator == "\t", label="x")
    assert list(file.rows()) == [tuple(cell or None for cell in row) for row in rows]


@pytest.mark.parametrize(
    "cell",
    ["x" * 2000, '"' + "x" * 2000 + '"', '"' + "x\n" * 1000 + '"', ",".join(["x" * 50] * 40)],
)
def test_a_row_above_the_limit_is_named(cell: str) -> None:
    data = f"a,b\n1,2\n{cell},3\n4,5\n".encode()
    file = CsvFile(io.BytesIO(data), is_tsv=False, label="x.csv", max_row_bytes=1000)
    rows = file.rows()
    assert next(rows) == ("1", "2")
    with pytest.raises(SampleError, match=r"^x\.csv:2: .*data\.max_row_bytes = 1,000"):
        next(rows)
