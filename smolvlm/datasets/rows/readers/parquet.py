"""Parquet files as batches of plain Arrow rows, a few megabytes at a time.

In: a file. Out: batches, and in place of a row that is larger than it may be, its size. What a
dictionary repeats stays in it until a row has been measured, so a small file takes no more memory
than its pages, which are bounded by their headers (`parquet_pages.py`).
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from smolvlm.datasets.rows.readers.parquet_pages import GroupFacts, group_facts
from smolvlm.datasets.rows.readers.plain_types import plain_batch, plain_schema
from smolvlm.datasets.rows.readers.row_sizes import batch_row_bytes, cut_points
from smolvlm.datasets.rows.readers.streams import swelling_limit, swells
from smolvlm.errors import SampleError

BATCH_BYTES = 8 << 20
_MAX_BATCH_ROWS = 65536
_ROW_BYTES = 8
"""That a row of nothing counts, towards what the file may come to."""


class ParquetRows:
    """An open Parquet file."""

    def __init__(self, path: Path, *, max_row_bytes: int, label: str) -> None:
        """Read the headers of its pages.

        Raises:
            SampleError: a page is too large, or the file comes to many times its size.
            ArrowException, ValueError, OSError: it is no Parquet file.
        """
        import pyarrow.parquet

        self._label = label
        self._max_row_bytes = max_row_bytes
        self._limit = swelling_limit(path.stat().st_size)
        footer = pyarrow.parquet.read_metadata(path)
        self._groups = group_facts(path, footer.schema, max_row_bytes=max_row_bytes, label=label)
        if sum(group.held_bytes for group in self._groups) > self._limit:
            raise swells(label)
        shared = sorted(set[str]().union(*(group.dictionaries for group in self._groups)))
        try:
            self._file = pyarrow.parquet.ParquetFile(
                path, read_dictionary=shared, page_checksum_verification=True
            )
        except KeyError as error:
            raise ValueError(f"a row group has a column {error} that the schema lacks") from None
        self.schema = plain_schema(self._file.schema_arrow)

    def __enter__(self) -> "ParquetRows":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def batches(self) -> Iterator[pa.RecordBatch | int]:
        """Yield the rows; an integer is the bytes of a row that is larger than it may be.

        Raises:
            SampleError: the rows come to many times the file's size.
            ArrowException, ValueError: the file is damaged.
        """
        num_bytes = 0.0
        # One row group at a time: dictionaries within lists cannot be read across several.
        for number, group in enumerate(self._groups):
            num_rows = 0
            for batch in self._file.iter_batches(_batch_rows(group), [number]):
                sizes = batch_row_bytes(batch)
                num_rows += batch.num_rows
                num_bytes += float(np.sum(sizes)) + _ROW_BYTES * len(sizes)
                if num_bytes > self._limit:
                    raise swells(self._label)
                yield from self._pieces(batch, sizes)
            if num_rows != group.num_rows:  # Arrow ends at the first column that ends
                what = f"row group {number + 1:,} has {group.num_rows:,} rows, and {num_rows:,} "
                what += "can be read: its columns are not of one length"
                raise SampleError(what, kind="bad_file", where=self._label, fix="write it anew")

    def _pieces(self, batch: pa.RecordBatch, sizes: Any) -> Iterator[pa.RecordBatch | int]:
        cuts = cut_points(sizes, min(BATCH_BYTES, self._max_row_bytes))
        for begin, end in pairwise(cuts):
            if end - begin == 1 and sizes[begin] > self._max_row_bytes:
                yield int(min(sizes[begin], 1 << 62))
            else:
                yield plain_batch(batch.slice(begin, end - begin), self.schema)


def _batch_rows(group: GroupFacts) -> int:
    """Return how many rows to read at a time, so that they come to `BATCH_BYTES` or so."""
    rows = group.num_rows * BATCH_BYTES // max(group.held_bytes, 1)
    if group.longest_shared:  # each value may be as long as that
        rows = min(rows, BATCH_BYTES // group.longest_shared)
    return max(1, min(rows, _MAX_BATCH_ROWS))
