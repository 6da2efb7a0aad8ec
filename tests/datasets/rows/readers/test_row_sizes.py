"""What values come to is known before they are made, however little an array holds."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.datasets.rows.readers.row_sizes import batch_row_bytes, cut_points, row_bytes

TEXTS = ["", "a" * 100, None, "bc"]
LENGTHS = [8.0, 108.0, 8.0, 10.0]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.binary(), pa.string_view(), pa.binary_view()]
)
def test_texts_are_as_long_as_they_are(kind: pa.DataType) -> None:
    values = [None if text is None else text.encode() for text in TEXTS]
    given = values if "binary" in str(kind) else TEXTS
    array = pa.array(given, kind)
    assert row_bytes(array).tolist() == LENGTHS
    assert row_bytes(array[1:3]).tolist() == LENGTHS[1:3]


def repeated(text: str, times: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([text]))


LONG = "x" * 1000
RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([3, 5], pa.int32()), pa.array([LONG, "y"]))
VIEWS = pa.ListViewArray.from_arrays(
    pa.array([0, 0, 1], pa.int32()), pa.array([4, 4, 0], pa.int32()), pa.array([LONG] * 4)
)
OF_VIEWS = pa.ListViewArray.from_arrays(
    pa.array([0, 0], pa.int32()), pa.array([3, 3], pa.int32()), VIEWS
)


@pytest.mark.parametrize(
    ("array", "least"),
    [
        (repeated(LONG, 5), [1000] * 5),
        (RUNS, [1000, 1000, 1000, 1, 1]),
        (RUNS[2:4], [1000, 1]),
        (VIEWS, [4000, 4000, 0]),
        (OF_VIEWS, [8000, 8000]),
        (pa.ListArray.from_arrays(pa.array([0, 4, 5]), repeated(LONG, 5)), [4000, 1000]),
        (pa.FixedSizeListArray.from_arrays(repeated(LONG, 6), 3), [3000, 3000]),
        (pa.FixedSizeListArray.from_arrays(repeated(LONG, 6), 3)[1:], [3000]),
        (pa.StructArray.from_arrays([repeated(LONG, 2), pa.array([1, 2])], ["a", "b"]), [1008] * 2),
        (pa.array([[True] * 1000, []], pa.list_(pa.bool_())), [8000, 0]),
        (pa.array([[None] * 1000], pa.list_(pa.null())), [8000]),
        (pa.array([[("k", LONG)]], pa.map_(pa.string(), pa.string())), [1001]),
    ],
)
def test_what_is_written_once_counts_as_often_as_it_is_read(
    array: pa.Array, least: list[int]
) -> None:
    sizes = row_bytes(array)
    assert len(sizes) == len(least)
    assert np.all(sizes >= least)
    assert np.all(sizes <= np.array(least) * 2 + 200)


@given(values=st.lists(st.lists(st.lists(st.text(max_size=9), max_size=3), max_size=3), min_size=1))
def test_a_slice_has_the_sizes_of_its_rows(values: list[Any]) -> None:
    array = pa.array(values, pa.list_(pa.list_(pa.string())))
    sizes = row_bytes(array)
    for row in range(len(values)):
        assert row_bytes(array[row : row + 1]).tolist() == [sizes[row]]
        text = sum(len(word.encode()) for words in values[row] for word in words)
        assert sizes[row] >= text


def test_columns_add_up() -> None:
    batch = pa.record_batch({"a": ["x" * 10, ""], "b": pa.array([1, 2])})
    assert batch_row_bytes(batch).tolist() == [26.0, 16.0]
    table = pa.Table.from_batches([batch, batch])
    assert batch_row_bytes(table).tolist() == [26.0, 16.0] * 2


@given(sizes=st.lists(st.integers(0, 9), max_size=20), limit=st.integers(1, 12))
def test_pieces_hold_the_limit_or_are_one_row(sizes: list[int], limit: int) -> None:
    cuts = cut_points([float(size) for size in sizes], limit)
    assert cuts[0] == 0
    assert cuts[-1] == len(sizes)
    assert cuts == sorted(set(cuts))
    for begin, end in pairwise(cuts):
        assert end - begin == 1 or sum(sizes[begin:end]) <= limit
