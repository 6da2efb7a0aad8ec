"""Files of rows as fuzzed inputs: JSON lines, JSON lists, CSV and TSV.

In: a seeded generator and an empty folder. Out: the file and its pictures written there, and what
is known of its rows. Rows are changed as values, files as bytes; a changed file's rows are those
that the reference reader finds in it.
"""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from fuzz import references
from fuzz.base_rows import FLAT, FORMATS, BaseRow, base_row
from fuzz.checked import Checker
from fuzz.damage import damaged
from fuzz.judge import ExpectedRow, judge_rows
from fuzz.row_changes import ChangedRow, changed_row

MAX_ROWS = 4
DAMAGED = 0.35
"""Share of files that are damaged as bytes."""


def changed_rows(
    random: Random, names: Sequence[str], *, first: int = 0
) -> tuple[list[BaseRow], list[ChangedRow]]:
    """Return the whole rows of an input, all of one format, and the same after their changes."""
    name = random.choice(names)
    count = random.randrange(1, MAX_ROWS + 1)
    number = random.randrange(1 << 11)
    bases = [base_row(name, first + number + place, random) for place in range(count)]
    return bases, [changed_row(base.row, random) for base in bases]


def write_pictures(folder: Path, bases: Sequence[BaseRow]) -> None:
    """Write the rows' pictures into a folder."""
    for base in bases:
        for name, data in base.pictures.items():
            (folder / name).write_bytes(data)


def source_of(path: Path, base: BaseRow) -> dict[str, Any]:
    """Return what a mixture says of a file of rows."""
    constants = {"constants": dict(base.constants)} if base.constants else {}
    return {"json_path": path.name, "path": ".", **constants}


def fuzz_rows(random: Random, folder: Path, checker: Checker) -> tuple[list[str], int]:
    """Make a file of rows, check it, and return its faults and how many rows were accepted."""
    ending = random.choice(("jsonl", "jsonl", "json", "csv", "tsv"))
    bases, changed = changed_rows(random, FLAT if ending in ("csv", "tsv") else list(FORMATS))
    write_pictures(folder, bases)
    if ending in ("csv", "tsv"):
        data, expected = _separated(changed, "," if ending == "csv" else "\t")
    else:
        data, expected = _json(changed, ending, random)
    if random.random() < DAMAGED:
        data = damaged(data, random)
        expected = _reread(data, ending)
    path = folder / f"rows.{ending}"
    path.write_bytes(data)
    checked = checker(source_of(path, bases[0]), folder)
    faults = list(judge_rows(checked, expected))
    return faults, sum(row.is_accepted for row in checked.rows)


def _json(
    changed: Sequence[ChangedRow], ending: str, random: Random
) -> tuple[bytes, list[ExpectedRow]]:
    is_ascii = random.random() < 0.5
    texts = [_dumps(row.row, is_ascii=is_ascii) for row in changed]
    if ending == "json":
        space = random.choice(("", " ", "\n", "\r\n\t"))
        data = f"[{space}{f',{space}'.join(texts)}{space}]"
    else:
        end = random.choice(("\n", "\r\n", "\n\n"))
        data = end.join(texts) + random.choice(("", end))
    mark = "\ufeff" if random.random() < 0.1 else ""
    known = [
        ExpectedRow(value=json.loads(text), is_same=row.is_same, is_moved=row.is_moved)
        for text, row in zip(texts, changed, strict=True)
    ]
    return f"{mark}{data}".encode(), known


def _dumps(row: Any, *, is_ascii: bool) -> str:
    text = json.dumps(row, ensure_ascii=is_ascii)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair can be escaped alone
        return json.dumps(row)
    return text


def _separated(
    changed: Sequence[ChangedRow], separator: str
) -> tuple[bytes, list[ExpectedRow] | None]:
    rows = [row.row for row in changed if isinstance(row.row, dict)]
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=separator)
    try:
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(row.get(name)) for name in columns])
        data = file.getvalue().encode()
    except (csv.Error, UnicodeEncodeError):
        return b"question,answer\r\na,b\r\n", None
    found = references.separated_rows(data, separator)
    if found is None or len(found) != len(changed):
        return data, None
    return data, [
        ExpectedRow(value=value, is_same=row.is_same and _is_plain(row.row), is_moved=row.is_moved)
        for value, row in zip(found, changed, strict=True)
    ]


def _is_plain(row: Any) -> bool:
    """Say whether a row's cells are texts that CSV keeps, under names that it keeps."""
    return isinstance(row, dict) and all(isinstance(value, str) for value in row.values())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _reread(data: bytes, ending: str) -> list[ExpectedRow] | None:
    """Return what is known of a damaged file's rows."""
    if ending == "jsonl":
        values: list[Any] | None = references.json_lines(data)
    elif ending == "json":
        values = references.json_list(data)
    else:
        values = references.separated_rows(data, "," if ending == "csv" else "\t")
    if values is None:
        return None
    return [ExpectedRow(value=value, is_moved=True) for value in values]
