"""Parquet files and saved data sets as fuzzed inputs.

In: a seeded generator and an empty folder. Out: a file of columns written there, and what is known
of its rows. A damaged Parquet file may be accepted where pyarrow, by itself and comparing the
checksums of pages that have them, reads it too, and then with the same rows. A saved data set has
no checksums: of a damaged one each row has only to be of one piece.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.base_rows import FORMATS, Row
from fuzz.checked import CheckedInput, Checker
from fuzz.damage import damaged
from fuzz.judge import ExpectedRow, judge_rows
from fuzz.references import UNREADABLE
from fuzz.row_changes import ChangedRow
from fuzz.row_files import changed_rows, source_of, write_pictures
from fuzz.tags import picture_bytes, tags_in

DAMAGED = 0.6
SAVED = 0.2
"""Share of saved data sets among these inputs."""


def fuzz_tables(random: Random, folder: Path, checker: Checker) -> tuple[list[str], int]:
    """Make a file of columns, check it, and return its faults and how many rows were accepted."""
    bases, changed = changed_rows(random, [name for name in FORMATS if name != "caption"])
    write_pictures(folder, bases)
    table, is_whole = _table([base.row for base in bases], changed, random)
    if random.random() < SAVED and _can_be_saved(table):
        path = folder / "saved"
        is_damaged = _save(table, path, random)
        reference = None if is_damaged else table.to_pylist()
    else:
        path = folder / "rows.parquet"
        data = _parquet(table, random)
        is_damaged = random.random() < DAMAGED
        data = damaged(data, random) if is_damaged else data
        path.write_bytes(data)
        reference = _by_pyarrow(data)
    checked = checker(source_of(path, bases[0]), folder)
    faults = list(_judge(checked, reference, changed if not is_damaged and is_whole else None))
    if reference is None and path.suffix == ".parquet" and checked.refusal is None:
        faults.append("a Parquet file is accepted that pyarrow refuses")
    return faults, sum(row.is_accepted for row in checked.rows)


def _can_be_saved(table: pa.Table) -> bool:
    """Return whether a data set can be made of it: not of every name, nor of lists in lists without
    end."""
    from datasets import Dataset
    from datasets.table import CastError

    try:
        Dataset(table)
    except (CastError, pa.ArrowException):
        return False
    return True


def _judge(
    checked: CheckedInput, reference: list[Any] | None, changed: Sequence[ChangedRow] | None
) -> list[str]:
    if reference is None:
        return list(judge_rows(checked, None))
    known = changed or [ChangedRow(row=None, is_same=False, is_moved=True)] * len(reference)
    expected = [
        ExpectedRow(value=value, is_same=row.is_same and changed is not None, is_moved=row.is_moved)
        for value, row in zip(reference, known, strict=True)
    ]
    return list(judge_rows(checked, expected))


def _table(
    rows: Sequence[Row], changed: Sequence[ChangedRow], random: Random
) -> tuple[pa.Table, bool]:
    """Return a table of the changed rows, or of the whole ones where no column holds those; and
    whether it is of the former."""
    form = random.randrange(3)
    try:
        table = _of_rows([_with_bytes(row.row, form) for row in changed])
        pq.write_table(table, io.BytesIO())
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return _of_rows(rows[:1]), False
    return (table, True) if table.num_columns else (_of_rows(rows[:1]), False)


def _of_rows(rows: Sequence[Row]) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.Table.from_pydict({name: [row.get(name) for row in rows] for name in names})


def _with_bytes(row: Any, form: int) -> Row:
    """Return a row whose one picture may be the bytes themselves, as data sets have them.

    Args:
        row: as it was changed.
        form: 0 leaves its name, 1 is the bytes, 2 an object of both.
    """
    if not isinstance(row, dict) or not all(isinstance(name, str) for name in row):
        raise TypeError("a row that is no object")
    name = row.get("image")
    if isinstance(name, str) and name.endswith(".png") and tags_in(name):
        data = picture_bytes(tags_in(name)[0])
        return row | {"image": (name, data, {"bytes": data, "path": None})[form]}
    return row


def _parquet(table: pa.Table, random: Random) -> bytes:
    file = io.BytesIO()
    pq.write_table(
        table,
        file,
        compression=random.choice(("none", "snappy", "zstd", "gzip", "lz4")),
        use_dictionary=random.random() < 0.6,
        row_group_size=random.choice((1, 2, 1024)),
        data_page_version=random.choice(("1.0", "2.0")),
        write_page_checksum=random.random() < 0.5,
        write_statistics=random.random() < 0.5,
    )
    return file.getvalue()


def _by_pyarrow(data: bytes) -> list[Any] | None:
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
        return [row for group in groups for row in _rows_of(group)]
    except (pa.ArrowException, ValueError, OSError, OverflowError):
        return None


def _rows_of(table: pa.Table) -> list[Any]:
    rows: list[Any] = []
    for number in range(len(table)):
        try:
            rows += table.slice(number, 1).to_pylist()
        except UnicodeDecodeError:
            rows.append(UNREADABLE)
    return rows


def _save(table: pa.Table, folder: Path, random: Random) -> bool:
    """Write a data set as `save_to_disk` does; say whether one of its files was damaged then."""
    from datasets import Dataset

    folder.mkdir()
    dataset = Dataset(table)
    data = io.BytesIO()
    with pa.ipc.new_stream(data, dataset.data.schema) as writer:
        writer.write_table(dataset.data.table)
    state = {
        "_data_files": [{"filename": "data-00000-of-00001.arrow"}],
        "_fingerprint": "0123456789abcdef",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    info = {"citation": "", "description": "", "features": dataset.features.to_dict()}
    files = {
        "data-00000-of-00001.arrow": data.getvalue(),
        "state.json": json.dumps(state).encode(),
        "dataset_info.json": json.dumps(info).encode(),
    }
    is_damaged = random.random() < DAMAGED
    if is_damaged:
        name = random.choice((*files, *files, "data-00000-of-00001.arrow"))
        files[name] = damaged(files[name], random)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return is_damaged
