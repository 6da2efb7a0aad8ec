"""Which rows a filter keeps, and what it refuses to compare."""

import json
import operator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.rows.conversations import OpenSource, open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.row_filter import parse_filter
from smolvlm.errors import ConfigError, SampleError

ROWS = [
    {"question": f"{number}?", "answer": "x", "score": score, "kind": kind}
    for number, (score, kind) in enumerate(
        [(1, "a"), (3, "b"), (None, "a"), (5, None), (4.5, "c"), (3, "a")]
    )
]


def opened(folder: Path, name: str, **entry: Any) -> OpenSource:
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=4)
    elif name.endswith(".csv"):
        lines = [",".join("" if v is None else str(v) for v in row.values()) for row in ROWS]
        path.write_text("\n".join([",".join(ROWS[0]), *lines]))
    else:
        path.write_text("\n".join(map(json.dumps, ROWS)))
    (source,) = open_sources(load_mixture([{"path": name, **entry}], base_dir=folder))
    return source


@pytest.mark.parametrize("name", ["r.jsonl", "r.parquet", "r.csv"])
@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ({"score": {">=": 3}}, [1, 3, 4, 5]),
        ({"score": {">": 3, "<": 5}}, [4]),
        ({"score": {"<=": 3}, "kind": "a"}, [0, 5]),
        ({"score": 3}, [1, 5]),
        ({"score": {"!=": 3}}, [0, 3, 4]),
        ({"score": None}, [2]),
        ({"score": {"!=": None}}, [0, 1, 3, 4, 5]),
        ({"kind": ["b", "c"]}, [1, 4]),
        ({"kind": {"not in": ["b", "c"]}}, [0, 2, 5]),
        ({"kind": {">": "a"}}, [1, 4]),
        ({"score": {"in": [1, 4.5]}}, [0, 4]),
    ],
)
def test_which_rows_are_kept(tmp_path: Path, name: str, written: Any, kept: list[int]) -> None:
    source = opened(tmp_path, name, filter=written)
    assert source.rows.tolist() == kept
    assert source.num_filtered == len(ROWS) - len(kept)


def test_sampling_chooses_from_what_is_left(tmp_path: Path) -> None:
    entry = {"filter": {"score": {">=": 3}}, "sampling_strategy": "end:50%"}
    assert opened(tmp_path, "r.jsonl", **entry).rows.tolist() == [4, 5]


VALUES = st.none() | st.integers(-3, 3) | st.floats(-3, 3)
OPERATORS = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(VALUES, min_size=1, max_size=12),
    name=st.sampled_from([*OPERATORS]),
    operand=st.integers(-3, 3) | st.floats(-3, 3),
)
def test_a_filter_is_pythons(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], name: str, operand: float
) -> None:
    folder = tmp_path_factory.mktemp("law")
    (folder / "r.jsonl").write_text("\n".join(json.dumps({"v": value}) for value in values))
    expected = [
        number
        for number, value in enumerate(values)
        if value is not None and OPERATORS[name](value, operand)
    ]
    entry = {"path": "r.jsonl", "filter": {"v": {name: operand}}}
    specs = load_mixture([entry], base_dir=folder)
    if expected:
        assert open_sources(specs)[0].rows.tolist() == expected
    else:
        with pytest.raises(SampleError, match=r"keeps none of its .* rows\n  fix: loosen"):
            open_sources(specs)


@pytest.mark.parametrize(
    ("name", "written", "message"),
    [
        (
            "r.jsonl",
            {"score": "3"},
            r"r\.jsonl:1: `score` is a number, 1, .* with text",
        ),
        ("r.parquet", {"kind": {">": 1}}, r"r\.parquet:1: `kind` is text, 'a', .* with a number"),
        ("r.csv", {"kind": {">": 1}}, r"r\.csv:1: `kind` is text, 'a', .* with a number"),
        ("r.jsonl", {"scroe": 3}, r"r\.jsonl:1: no column `scroe`.*\n  fix: did you mean `score`"),
        (
            "r.parquet",
            {"scroe": 3},
            r"r\.parquet: no column `scroe`.*\n  fix: did you mean",
        ),
        ("r.jsonl", {"score": {">": 99}}, r"r\.jsonl: `filter` keeps none of its 6 rows"),
    ],
)
def test_what_cannot_be_compared_is_named(
    tmp_path: Path, name: str, written: Any, message: str
) -> None:
    with pytest.raises(SampleError, match=message):
        opened(tmp_path, name, filter=written)


def test_a_row_that_cannot_be_read_is_kept_to_be_counted_as_bad(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"v": 1}\n{"v": \n{"v": 3}\n[1]')
    entry = {"path": "r.jsonl", "filter": {"v": 3}}
    (source,) = open_sources(load_mixture([entry], base_dir=tmp_path))
    assert source.rows.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([], "must map columns to what their values satisfy"),
        ({}, "must map columns"),
        ({3: 1}, "the column 3 is no text"),
        ({"a": {}}, "nothing is asked of `a`"),
        ({"a": {"=>": 1}}, "unknown operator '=>'\n  fix: did you mean `>=`"),
        ({"a": {"$lt": 1}}, "did you mean `<`"),
        ({"a": {"<>": 1}}, "did you mean `!=`"),
        ({"a": {"contains": 1}}, "the operators are >=, >"),
        ({"a": {">=": "3"}}, "'3' is text, and texts compare letter by letter"),
        ({"a": {"not_in": [1]}}, "did you mean `not in`"),
        ({"a": {"in": 3}}, "3 is no list of values"),
        ({"a": []}, "is no list of values"),
        ({"a": [1, "b"]}, "are no values of one kind"),
        ({"a": [None]}, "are no values of one kind"),
        ({"a": {">": None}}, "nothing compares with null"),
        ({"a": {">": True}}, "nothing compares with true"),
        ({"a": {"==": [1]}}, "nothing compares with"),
    ],
)
def test_a_filter_that_says_nothing_is_refused(written: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_filter(written)
    assert message in str(caught.value)


def test_the_mixture_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\[0\]\.filter = .*: `a`: unknown operator '=>'"):
        opened(tmp_path, "r.jsonl", filter={"a": {"=>": 1}})


@pytest.mark.parametrize("name", ["r.jsonl", "r.parquet"])
def test_text_that_is_a_number_counts_as_one(tmp_path: Path, name: str) -> None:
    values = ["10", " 2.5", "3", None, "-1"]
    rows = [{"v": value} for value in values]
    if name == "r.parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
    else:
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    specs = load_mixture([{"path": name, "filter": {"v": {">=": 3}}}], base_dir=tmp_path)
    assert open_sources(specs)[0].rows.tolist() == [0, 2]
