"""How many bytes each row of an Arrow column comes to as Python's values, before any is made.

In: an array. Out: a size a row. A small array may stand for a large one: a dictionary's value, a
run or a view is written once and read as often as a row likes. So sizes are sums over offsets and
indices, and nothing is expanded to be measured. A value counts eight bytes at least, what a list of
Python takes for it. They are floats: views of views multiply beyond 64 bits.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64
from pyarrow.compute import call_function

Sizes = Float64[np.ndarray, " row"]

_POINTER_BYTES = 8
_STRUCT_BYTES = 64
_VIEW_BYTES = 16


def batch_row_bytes(batch: pa.RecordBatch | pa.Table) -> Sizes:
    """Return the size of each row over all columns."""
    total = np.zeros(batch.num_rows)
    for column in batch.columns:
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        total += np.concatenate([np.zeros(0), *map(row_bytes, chunks)])
    return total


def row_bytes(array: Any) -> Sizes:
    """Return the size of each of an array's values in bytes; a null counts as an empty one."""
    for holds, measure in _MEASURES:
        if holds(array.type):
            return measure(array)
    width = _width(array.type)
    return np.full(len(array), float(max(width, _POINTER_BYTES)))


def cut_points(sizes: Sequence[float] | Sizes, limit: int) -> list[int]:
    """Return where to cut rows so that each piece has at most `limit` bytes, or is one row.

    Sizes of 3, 3, 9 and 1 under a limit of 6 give [0, 2, 3, 4].
    """
    cuts, held = [0], 0.0
    for row, size in enumerate(sizes):
        if row > cuts[-1] and held + size > limit:
            cuts.append(row)
            held = 0.0
        held += size
    return [*cuts, len(sizes)] if len(sizes) else [0]


def _width(kind: pa.DataType) -> int:
    try:
        return -(-kind.bit_width // 8)
    except ValueError:  # null, and what has no width
        return 0


def _of_extension(array: Any) -> Sizes:
    return row_bytes(array.storage)


def _of_dictionary(array: Any) -> Sizes:
    values = row_bytes(array.dictionary)
    if not len(values):
        return np.full(len(array), float(_POINTER_BYTES))
    indices = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
    return np.take(values, indices.astype(np.int64), mode="clip")


def _of_runs(array: Any) -> Sizes:
    ends = array.run_ends.to_numpy(zero_copy_only=False).astype(np.int64)
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    begin, end = array.offset, array.offset + len(array)
    counts = np.clip(ends, begin, end) - np.clip(starts, begin, end)
    return np.repeat(row_bytes(array.values), counts)


def _of_struct(array: Any) -> Sizes:
    sizes = np.full(len(array), float(_STRUCT_BYTES))
    for place in range(array.type.num_fields):
        sizes += row_bytes(array.field(place))
    return sizes


def _of_list(array: Any) -> Sizes:
    offsets = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    if not len(array):
        return np.zeros(0)
    begin, end = int(offsets[0]), int(offsets[-1])
    ends = _running(row_bytes(array.values.slice(begin, end - begin)))
    return _POINTER_BYTES + ends[offsets[1:] - begin] - ends[offsets[:-1] - begin]


def _of_fixed_list(array: Any) -> Sizes:
    width = array.type.list_size
    values = array.values.slice(array.offset * width, len(array) * width)
    return _POINTER_BYTES + row_bytes(values).reshape(len(array), width).sum(axis=1)


def _of_list_view(array: Any) -> Sizes:
    offsets = array.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    counts = array.sizes.to_numpy(zero_copy_only=False).astype(np.int64)
    ends = _running(row_bytes(array.values))
    last = len(ends) - 1
    return (
        _POINTER_BYTES + ends.take(offsets + counts, mode="clip") - ends[np.minimum(offsets, last)]
    )


def _of_text(array: Any) -> Sizes:
    lengths = call_function("binary_length", [array]).fill_null(0)
    return _POINTER_BYTES + lengths.to_numpy(zero_copy_only=False).astype(np.float64)


def _of_text_view(array: Any) -> Sizes:
    views = np.frombuffer(array.buffers()[1], np.int32)[:: _VIEW_BYTES // 4]
    return _POINTER_BYTES + views[array.offset : array.offset + len(array)].astype(np.float64)


def _running(sizes: Sizes) -> Sizes:
    return np.concatenate([np.zeros(1), np.cumsum(sizes)])


def _any_of(*tests: Callable[[pa.DataType], bool]) -> Callable[[pa.DataType], bool]:
    return lambda kind: any(test(kind) for test in tests)


_kinds = pa.types
_MEASURES: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], Sizes]], ...] = (
    (lambda kind: isinstance(kind, pa.BaseExtensionType), _of_extension),
    (_kinds.is_dictionary, _of_dictionary),
    (_kinds.is_run_end_encoded, _of_runs),
    (_kinds.is_struct, _of_struct),
    (_any_of(_kinds.is_list, _kinds.is_large_list, _kinds.is_map), _of_list),
    (_kinds.is_fixed_size_list, _of_fixed_list),
    (_any_of(_kinds.is_list_view, _kinds.is_large_list_view), _of_list_view),
    (
        _any_of(
            *(_kinds.is_string, _kinds.is_large_string, _kinds.is_binary, _kinds.is_large_binary)
        ),
        _of_text,
    ),
    (_any_of(_kinds.is_string_view, _kinds.is_binary_view), _of_text_view),
)
"""What a type is, and how its values are measured."""
