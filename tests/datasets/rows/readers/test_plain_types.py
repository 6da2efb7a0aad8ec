"""Arrow's types as plain values: categoricals of any depth, decimals, times, extensions, labels."""

import datetime
import decimal
import pickle
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.datasets.rows.readers.class_labels import namers
from smolvlm.datasets.rows.row_table import RowTable
from smolvlm.datasets.rows.tables import open_table
from smolvlm.errors import SampleError

CATEGORY = pa.dictionary(pa.int8(), pa.string())


def table_at(path: Path) -> RowTable:
    (spec,) = load_mixture([{"path": path.name}], base_dir=path.parent)
    return open_table(spec)


def rows_of(table: RowTable) -> list[Any]:
    return [table[index] for index in range(len(table))]


def written(folder: Path, *groups: pa.Table) -> RowTable:
    """Write tables as the row groups of one Parquet file, and open it."""
    with pyarrow.parquet.ParquetWriter(folder / "x.parquet", groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group)
    return table_at(folder / "x.parquet")


@pytest.mark.parametrize(
    "kind",
    [
        CATEGORY,
        pa.dictionary(pa.int32(), pa.large_string()),
        pa.dictionary(pa.uint8(), pa.string(), ordered=True),
    ],
)
def test_categoricals_that_differ_between_row_groups(tmp_path: Path, kind: pa.DataType) -> None:
    groups = [["a", None, "a"], ["x", "y", "z"]]
    tables = [pa.table({"answer": pa.array(group, kind)}) for group in groups]
    assert [row["answer"] for row in rows_of(written(tmp_path, *tables))] == [
        *groups[0],
        *groups[1],
    ]


def test_categoricals_in_lists_and_structs(tmp_path: Path) -> None:
    schema = pa.schema(
        [
            ("answers", pa.list_(CATEGORY)),
            ("pair", pa.struct([("user", CATEGORY), ("n", pa.int8())])),
        ]
    )
    groups = [
        [{"answers": ["a", "b"], "pair": {"user": "q", "n": 1}}],
        [{"answers": ["c"], "pair": {"user": "r", "n": 2}}, {"answers": None, "pair": None}],
    ]
    tables = [pa.Table.from_pylist(group, schema) for group in groups]
    assert rows_of(written(tmp_path, *tables)) == [*groups[0], *groups[1]]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([decimal.Decimal("3.50")], pa.decimal128(5, 2), [3.5]),
        ([decimal.Decimal("12")], pa.decimal128(5, 0), [12]),
        ([datetime.date(2020, 1, 2)], pa.date32(), ["2020-01-02"]),
        ([datetime.datetime(2020, 1, 2, 3, 4, 5)], pa.timestamp("ms"), ["2020-01-02 03:04:05.000"]),
        ([datetime.time(1, 2, 3)], pa.time32("ms"), ["01:02:03.000"]),
        (["a", None], pa.string_view(), ["a", None]),
        (["a"], pa.large_string(), ["a"]),
        ([None], pa.null(), [None]),
        ([["a"]], pa.list_(pa.large_string(), 1), [["a"]]),
        ([[decimal.Decimal("1.5")]], pa.list_(pa.decimal128(4, 1)), [[1.5]]),
    ],
)
def test_other_types_are_plain_values(
    tmp_path: Path, values: list[Any], kind: pa.DataType, expected: list[Any]
) -> None:
    table = written(tmp_path, pa.table({"x": pa.array(values, kind)}))
    assert [row["x"] for row in rows_of(table)] == expected


def test_an_extension_is_its_storage(tmp_path: Path) -> None:
    storage = pa.array([b"0" * 16], pa.binary(16))
    table = written(tmp_path, pa.table({"id": pa.ExtensionArray.from_storage(pa.uuid(), storage)}))
    assert rows_of(table) == [{"id": b"0" * 16}]


@pytest.fixture
def labelled() -> datasets.Dataset:
    label = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features(
        {
            "answer": label,
            "tags": datasets.Sequence(label),
            "box": {"kind": label, "n": datasets.Value("int64")},
        }
    )
    rows = {
        "answer": [1, 0, -1, None],
        "tags": [[0, 1], [], [1], None],
        "box": [{"kind": 0, "n": 5}] * 4,
    }
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.parametrize("way", ["saved", "x.parquet"])
def test_a_class_label_is_its_name(labelled: datasets.Dataset, tmp_path: Path, way: str) -> None:
    if way == "saved":
        labelled.save_to_disk(tmp_path / way)
    else:
        labelled.to_parquet(tmp_path / way)
    table = table_at(tmp_path / way)
    box = {"kind": "cat", "n": 5}
    expected = [
        {"answer": "dog", "tags": ["cat", "dog"], "box": box},
        {"answer": "cat", "tags": [], "box": box},
        {"answer": None, "tags": ["dog"], "box": box},
        {"answer": None, "tags": None, "box": box},
    ]
    assert rows_of(table) == expected
    assert list(table.values("answer")) == ["dog", "cat", None, None]
    assert rows_of(pickle.loads(pickle.dumps(table))) == expected
    with pytest.raises(SampleError, match=r"no column `anwser`.*\n  fix: did you mean `answer`"):
        list(table.values("anwser"))


def test_a_label_without_a_name_is_named() -> None:
    name = namers({"a": {"names": ["x"], "_type": "ClassLabel"}})["a"]
    with pytest.raises(SampleError, match="column `a` has class label 7, and 1 names"):
        name(7)


@pytest.mark.parametrize(
    ("feature", "value", "expected"),
    [
        ([{"names": ["x"], "_type": "ClassLabel"}], [0], ["x"]),
        (
            {"feature": {"l": {"names": ["x"], "_type": "ClassLabel"}}, "_type": "Sequence"},
            {"l": [0]},
            {"l": ["x"]},
        ),
        (
            {"feature": {"l": {"names": ["x"], "_type": "ClassLabel"}}, "_type": "Sequence"},
            [{"l": 0}],
            [{"l": "x"}],
        ),
    ],
)
def test_older_forms_of_features(feature: Any, value: Any, expected: Any) -> None:
    assert namers({"a": feature})["a"](value) == expected


def test_features_without_labels_name_nothing() -> None:
    assert namers({"a": {"dtype": "string", "_type": "Value"}, "b": [], "c": None}) == {}
