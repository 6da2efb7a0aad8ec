"""Data sets of Hugging Face, saved or from the hub: memory-mapped Arrow files.

In: a source. Out: its rows, class labels by their names.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from smolvlm.config.problems import shown_text, shown_value
from smolvlm.datasets.rows.readers.class_labels import namers
from smolvlm.datasets.rows.readers.plain_types import plain_batch, plain_schema
from smolvlm.datasets.rows.readers.row_sizes import batch_row_bytes, cut_points
from smolvlm.datasets.rows.readers.streams import MAX_ROW_BYTES, oversize_row
from smolvlm.datasets.rows.row_table import RowTable, no_column, value_or_error
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.errors import SampleError
from smolvlm.media.decoders import DecoderError, decoder_errors

BATCH_BYTES = 8 << 20
"""Of values that are made at a time."""
READ_ROWS = 512
"""Values of one column that are read at a time."""


class SavedTable(RowTable):
    """Rows of a Hugging Face data set, in Arrow files already; media are bytes or paths."""

    def __init__(self, dataset: Any, *, label: str, max_row_bytes: int = MAX_ROW_BYTES) -> None:
        super().__init__(label=label)
        self._max_row_bytes = max_row_bytes
        self.identity_of_rows = str(dataset._fingerprint)
        self._dataset = dataset.with_format("arrow")
        self._features = dataset.features.to_dict()
        self._namers = namers(self._features)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_namers": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._namers = namers(self._features)

    @property
    def identity(self) -> str:
        return self.identity_of_rows

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> object:
        if not 0 <= index < len(self):
            raise IndexError(index)
        table = self._dataset[index]
        with _damage():
            num_bytes = float(_row_bytes(table)[0])
        self._check(num_bytes)
        with _damage():
            row = _plain(table).to_pylist()[0]
        return {name: self._named(name, value) for name, value in row.items()}

    def values(self, column: str) -> Iterator[Any]:
        if column not in self._dataset.column_names:
            raise no_column(column, self._dataset.column_names, where=self.label)
        only = self._dataset.select_columns([column])
        for start in range(0, len(self), READ_ROWS):
            table = only[start : start + READ_ROWS]
            with _damage():
                sizes = _row_bytes(table)
            cuts = cut_points(sizes, min(BATCH_BYTES, self._max_row_bytes))
            for begin, end in pairwise(cuts):
                try:
                    self._check(float(sizes[begin]))
                except SampleError as error:
                    yield error
                    continue
                with _damage():
                    values = _plain(table.slice(begin, end - begin)).column(0).to_pylist()
                for value in values:
                    yield value_or_error(lambda value=value: self._named(column, value))

    def _check(self, num_bytes: float) -> None:
        if num_bytes > self._max_row_bytes:
            raise oversize_row(int(min(num_bytes, 1 << 62)), self._max_row_bytes)

    def _named(self, column: str, value: Any) -> Any:
        namer = self._namers.get(column)
        return value if namer is None else namer(value)


@contextmanager
def _damage() -> Iterator[None]:
    """Turn what Arrow raises on damaged columns into the row's `SampleError`."""
    try:
        with decoder_errors():
            yield
    except DecoderError as error:
        what = f"its columns are damaged: {shown_text(str(error))}"
        raise SampleError(what, fix="save the data set anew") from None


def _row_bytes(table: pa.Table) -> np.ndarray:
    """Return how many bytes each row has (axis `row`).

    Columns that are damaged (an Arrow file has no checksums) may lead out of the file's memory, so
    they are looked over before anything of them is read.

    Raises:
        ArrowInvalid: they are.
    """
    table.validate(full=True)
    return batch_row_bytes(table)


def _plain(table: pa.Table) -> pa.Table:
    """Return a table, which was looked over, under plain types."""
    schema = plain_schema(table.schema)
    if schema.equals(table.schema):
        return table
    return pa.Table.from_batches([plain_batch(own, schema) for own in table.to_batches()], schema)


def open_saved(spec: SourceSpec) -> RowTable:
    """Open a folder that `save_to_disk` wrote, or a data set of the hub (downloaded once)."""
    import datasets

    try:
        with decoder_errors():  # of a damaged folder `datasets` raises KeyError, AttributeError ...
            dataset: Any = (
                datasets.load_dataset(spec.label, split=spec.split or "train")
                if spec.format == "hub"
                else datasets.load_from_disk(str(spec.path))
            )
    except DecoderError as error:
        fix = (
            "check the name, the split and the network"
            if spec.format == "hub"
            else "save the data set anew"
        )
        raise SampleError(
            f"cannot be opened: {shown_text(str(error))}",
            kind="bad_file",
            where=spec.label,
            fix=fix,
        ) from None
    if isinstance(dataset, datasets.DatasetDict):
        split = spec.split or ("train" if "train" in dataset else next(iter(dataset), ""))
        if split not in dataset:
            raise SampleError(
                f"no split {shown_value(split)}",
                kind="bad_file",
                where=spec.label,
                fix=f"set `split` to one of {', '.join(map(str, dataset))}",
            )
        dataset = dataset[split]
    if not len(dataset):
        fix = "take the source out of the mixture"
        raise SampleError("the data set has no rows", kind="bad_file", where=spec.label, fix=fix)
    return SavedTable(dataset, label=spec.label, max_row_bytes=spec.max_row_bytes)
