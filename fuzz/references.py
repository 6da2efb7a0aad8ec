"""What a file holds by a reader that is none of ours: the measure of what ours may accept.

In: bytes. Out: rows as plain values, `UNREADABLE` in the place of a row that cannot be read; None
where a file as a whole cannot.
"""

import codecs
import csv
import io
import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

BLOCK = 512


class _Unreadable:
    def __repr__(self) -> str:
        return "UNREADABLE"


UNREADABLE: Final = _Unreadable()


def _no_key_twice(pairs: list[tuple[str, Any]]) -> Any:
    return dict(pairs) if len(dict(pairs)) == len(pairs) else UNREADABLE


def _settled(row: Any) -> Any:
    """Return a row, or `UNREADABLE` where an object in it is."""
    inner = row.values() if isinstance(row, dict) else row if isinstance(row, list) else ()
    is_bad = row is UNREADABLE or any(_settled(value) is UNREADABLE for value in inner)
    return UNREADABLE if is_bad else row


def json_value(text: bytes) -> Any:
    """Return what JSON text holds, or `UNREADABLE`; so is an object with a key twice."""
    try:
        return _settled(json.loads(text.decode(), object_pairs_hook=_no_key_twice))
    except (ValueError, RecursionError):
        return UNREADABLE


def json_lines(data: bytes) -> list[Any]:
    """Return the rows of JSON lines; lines of white space alone are none."""
    lines = data.removeprefix(codecs.BOM_UTF8).split(b"\n")
    return [json_value(line) for line in lines if line.strip()]


def json_list(data: bytes) -> list[Any] | None:
    """Return the rows of a JSON list; None if the file holds anything else."""
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
        rows = json.loads(text, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError):
        return None
    return [_settled(row) for row in rows] if isinstance(rows, list) else None


def separated_rows(data: bytes, separator: str) -> list[Any] | None:
    """Return the rows of CSV with a known separator, empty cells left out.

    None if the text is not UTF-8, quotes are not closed, or a row has not the header's cells.
    """
    try:
        text = data.removeprefix(codecs.BOM_UTF8).decode()
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        records = [record for record in reader if record]
    except (UnicodeDecodeError, csv.Error):
        return None
    if not records or any(len(record) != len(records[0]) for record in records):
        return None
    header, *rows = [[name.strip() for name in records[0]], *records[1:]]
    return [
        {name: cell for name, cell in zip(header, row, strict=True) if cell != ""} for row in rows
    ]


def png_problem(data: bytes) -> str | None:
    """Return what is wrong with the chunks of a PNG file before its end mark; None is nothing."""
    at, is_first = 8, True
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return "no signature"
    while True:
        if len(data) < at + 8:
            return "cut short"
        (size,) = struct.unpack(">I", data[at : at + 4])
        body = data[at + 4 : at + 8 + size]
        kind = body[:4]
        if is_first and kind != b"IHDR":
            return "no header first"
        if kind == b"IEND":
            return None
        if data[at + 8 + size : at + 12 + size] != struct.pack(">I", zlib.crc32(body)):
            return f"checksum of {kind!r}"
        at, is_first = at + 12 + size, False


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """A file within a shard."""

    name: str
    data: bytes


def tar_members(data: bytes) -> list[Member] | None:
    """Return the files of a shard of plain members; None if it is damaged.

    Every header has to carry its own sum, and a block of zeros to end it. Shards with long names
    or extended headers are not read here: None too.
    """
    try:
        return list(_members(data))
    except ValueError:
        return None


def _members(data: bytes) -> Iterator[Member]:
    at = 0
    while True:
        header = data[at : at + BLOCK]
        if header == bytes(BLOCK):
            return
        if len(header) < BLOCK or _octal(header[148:156]) != _header_sum(header):
            raise ValueError("damaged header")
        size, kind = _octal(header[124:136]), header[156:157]
        if kind not in (b"0", b"\0"):
            raise ValueError("a member of another type")
        name = header[:100].split(b"\0")[0].decode()
        prefix = header[345:500].split(b"\0")[0].decode()
        body = data[at + BLOCK : at + BLOCK + size]
        if len(body) < size:
            raise ValueError("cut short")
        yield Member(name=f"{prefix}/{name}" if prefix else name, data=body)
        at += BLOCK + -(-size // BLOCK) * BLOCK


def _octal(field: bytes) -> int:
    return int(field.strip(b" \0") or b"0", 8)


def _header_sum(header: bytes) -> int:
    return sum(header[:148]) + 8 * 32 + sum(header[156:])
