"""The rows of a table that a filter keeps.

In: a filter and a table. Out: the rows' numbers.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int32

from smolvlm.datasets.rows.row_filter import Condition, RowFilter
from smolvlm.datasets.rows.row_table import RowTable
from smolvlm.errors import SampleError


def filtered_rows(row_filter: RowFilter, table: RowTable) -> Int32[np.ndarray, " kept"]:
    """Return the numbers of the rows that satisfy every condition, ascending.

    A row that cannot be read is kept, so that it is counted as bad like any other.

    Raises:
        SampleError: a row lacks a column, or its value is of another kind; or none is left.
    """
    keeps: Bool[np.ndarray, " row"] = np.ones(len(table), np.bool_)
    for condition in row_filter.conditions:
        keeps &= np.fromiter(_held(condition, table), np.bool_, count=len(table))
    if not keeps.any():
        what = f"`filter` keeps none of its {len(table):,} rows"
        fix = "loosen the filter, or take the source out of the mixture"
        raise SampleError(what, kind="bad_rows", where=table.label, fix=fix)
    return np.flatnonzero(keeps).astype(np.int32)


def _held(condition: Condition, table: RowTable) -> Iterator[bool]:
    has_types = table.has_types
    for index, value in enumerate(table.values(condition.column)):
        if isinstance(value, SampleError):
            yield True
            continue
        try:
            yield condition.holds(value, has_types=has_types)
        except SampleError as error:
            error.where = table.where(index)
            raise
