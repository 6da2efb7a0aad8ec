"""What a Parquet file's pages would come to, from their headers: nothing is decompressed.

In: a file and its footer. Out: for each row group what reading it takes, or a `SampleError` that
names the row group and the column. A footer may say anything of its pages; what Arrow allocates
follows the headers in front of them, so these are read: a few bytes of Thrift's compact protocol
for each page. A page is decompressed whole, so none may be larger than a row's limit, or than
`MAX_PAGE_BYTES` where the limit is lower. What repeats values (dictionaries, shared beginnings) is
left to the reader, which is told of it.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from smolvlm.config.problems import shown_text
from smolvlm.errors import SampleError

MAX_PAGE_BYTES = 128 << 20
"""Of a decompressed page, whatever a row's limit; writers aim at 1 MiB."""
MAX_SHARED_BYTES = 1 << 30
"""Of the values of lists that are written as what they add to one another (DELTA_BYTE_ARRAY), were
each as long as its page."""
_HEADER_BYTES = 4096
_MAX_HEADER_BYTES = 16 << 20
"""What Arrow reads at most."""
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_DELTA_BYTE_ARRAY = 7
_DICTIONARIES = (2, 8)
_MIN_VALUE_BYTES = 8
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_MAX_DEPTH = 32
_LONG_LIST = 15
"""In place of a list's length: it stands behind."""
_FOOTER_SIZE, _FOOTER_END = 4, 8
"""Bytes of the footer's length, and of that with the mark behind it."""
_ROW_GROUPS, _COLUMNS, _NUM_ROWS, _META_DATA = 4, 1, 3, 3
"""Numbers of fields: of `FileMetaData`, twice of `RowGroup`, of `ColumnChunk`."""
_TYPE, _PATH, _NUM_VALUES, _DATA_OFFSET, _DICTIONARY_OFFSET = 1, 3, 5, 9, 11
"""Of `ColumnMetaData`."""
_TYPES = {
    name: number
    for number, name in enumerate(
        (
            *("BOOLEAN", "INT32", "INT64", "INT96"),
            *("FLOAT", "DOUBLE", "BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"),
        )
    )
}
"""Physical types by their names, numbered as in a footer."""


@dataclass(kw_only=True, slots=True)
class GroupFacts:
    """What reading one row group takes."""

    num_rows: int
    held_bytes: int = 0
    """Of all pages, decompressed; a value counts eight bytes at least."""
    longest_shared: int = 0
    """Largest page whose values share their beginnings: one may be as long. 0 is no such page."""
    dictionaries: set[str] = field(default_factory=set)
    """Paths of columns of text or bytes that have a dictionary."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Page:
    kind: int
    num_bytes: int
    """Decompressed."""
    packed_bytes: int
    num_values: int
    encoding: int
    header_bytes: int


class _Short(Exception):
    """The bytes end within the header."""


def group_facts(path: Path, schema: Any, *, max_row_bytes: int, label: str) -> list[GroupFacts]:
    """Return what reading each row group takes.

    pyarrow (26) hands a footer over without a look at its columns, and describes one whose numbers
    contradict each other by an exception of C++ that leaves through code which may not throw: the
    process ends. So columns are described here by what the footer's own bytes say.

    Args:
        path: the file.
        schema: pyarrow's, of its footer.
        max_row_bytes: of one row.
        label: what messages call the file.

    Raises:
        SampleError: a page is too large, or its header or the footer cannot be read.
    """
    found: list[GroupFacts] = []
    with path.open("rb") as stream:
        for number, group in enumerate(_row_groups(stream, label)):
            facts = GroupFacts(num_rows=_whole(_field(group, _NUM_ROWS)))
            for kind, column in zip(schema, _listed(_field(group, _COLUMNS)), strict=False):
                described = _field(column, _META_DATA)
                try:
                    if not _describes(described, kind):
                        what = f"the description of column `{shown_text(kind.path)}` is damaged"
                        raise _refused(what)
                    chunk = _Chunk(described, kind, max(max_row_bytes, MAX_PAGE_BYTES))
                    chunk.add_to(facts, stream)
                except SampleError as error:
                    error.where = f"{label}, row group {number + 1:,}"
                    raise
            found.append(facts)
    return found


def _row_groups(stream: BinaryIO, label: str) -> list[Any]:
    """Return the row groups' fields, by the footer."""
    stream.seek(-_FOOTER_END, os.SEEK_END)
    size = int.from_bytes(stream.read(_FOOTER_SIZE), "little")
    stream.seek(-_FOOTER_END - size, os.SEEK_END)
    try:
        fields, _ = _struct(stream.read(size), 0)
    except _Short:
        error = _refused("its footer cannot be read")
        error.where = label
        raise error from None
    return _listed(fields.get(_ROW_GROUPS))


def _field(struct: object, number: int) -> Any:
    return struct.get(number) if isinstance(struct, dict) else None


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _describes(described: object, kind: Any) -> bool:
    """Return whether a row group's column is the schema's of the same place."""
    steps = _listed(_field(described, _PATH))
    path = b".".join(step for step in steps if isinstance(step, bytes))
    return path == kind.path.encode() and _field(described, _TYPE) == _TYPES.get(kind.physical_type)


def _whole(value: object) -> int:
    return value if isinstance(value, int) else -1


class _Chunk:
    """One column of a row group."""

    def __init__(self, described: Mapping[int, Any], kind: Any, max_page_bytes: int) -> None:
        self._described = described
        self._path = str(kind.path)
        self._name = shown_text(self._path)
        self._is_text = kind.physical_type == "BYTE_ARRAY"
        is_fixed = kind.physical_type == "FIXED_LEN_BYTE_ARRAY"
        self._value_bytes = max(int(kind.length) if is_fixed else 0, _MIN_VALUE_BYTES)
        self._is_nested = kind.max_repetition_level > 0
        self._max_page_bytes = max_page_bytes

    def add_to(self, facts: GroupFacts, stream: BinaryIO) -> None:
        """Add what reading it takes."""
        longest_shared = num_shared = 0
        for page in self._pages(stream):
            facts.held_bytes += page.num_bytes + page.num_values * self._value_bytes
            if page.kind == _DICTIONARY or page.encoding in _DICTIONARIES:
                facts.dictionaries |= {self._path} if self._is_text else set()
            if page.encoding == _DELTA_BYTE_ARRAY and self._is_text:
                longest_shared = max(longest_shared, page.num_bytes)
                num_shared += page.num_values
        facts.longest_shared = max(facts.longest_shared, longest_shared)
        if self._is_nested and longest_shared * num_shared > MAX_SHARED_BYTES:
            what = (
                f"lists of column `{self._name}` may come to {longest_shared * num_shared:,} bytes"
            )
            raise _refused(
                f"{what} (encoding DELTA_BYTE_ARRAY)", fix="write it with another encoding"
            )

    def _pages(self, stream: BinaryIO) -> Iterator[_Page]:
        """Yield the pages that Arrow will read: up to the number of values in the footer."""
        offsets = (self._described.get(_DATA_OFFSET), self._described.get(_DICTIONARY_OFFSET))
        place = min((begin for begin in offsets if isinstance(begin, int)), default=-1)
        left = _whole(self._described.get(_NUM_VALUES))
        while left > 0:
            page = _read_header(stream, place)
            if page is None:
                raise _refused(f"a page of column `{self._name}` has no header that can be read")
            self._check(page)
            yield page
            place += page.header_bytes + page.packed_bytes
            left -= page.num_values if page.kind in (_DATA, _DATA_V2) else 0

    def _check(self, page: _Page) -> None:
        held = max(page.num_bytes, page.num_values * self._value_bytes)
        if page.num_bytes < 0 or page.packed_bytes < 0 or page.num_values < 0:
            raise _refused(f"a page of column `{self._name}` has a negative size")
        if held > self._max_page_bytes:
            raise _refused(
                f"a page of column `{self._name}` comes to {held:,} bytes, more than "
                f"{self._max_page_bytes:,}",
                fix="write the file anew, media as files; or raise `data.max_row_bytes` if you "
                "have the memory",
            )


def _refused(what: str, *, fix: str = "write the file anew") -> SampleError:
    return SampleError(what, kind="bad_file", fix=fix)


def _read_header(stream: BinaryIO, place: int) -> _Page | None:
    """Return the page whose header lies there; None where that is none."""
    size = _HEADER_BYTES
    while place >= 0:
        stream.seek(place)
        data = stream.read(size)
        try:
            fields, end = _struct(data, 0)
        except _Short:
            if len(data) < size or size >= _MAX_HEADER_BYTES:
                return None
            size *= 4
            continue
        return _page_of(fields, header_bytes=end)
    return None


def _page_of(fields: dict[int, Any], *, header_bytes: int) -> _Page | None:
    """Return what a header's fields say (`PageHeader` of parquet.thrift)."""
    kind, num_bytes, packed_bytes = (fields.get(place) for place in (1, 2, 3))
    if not (isinstance(kind, int) and isinstance(num_bytes, int) and isinstance(packed_bytes, int)):
        return None
    inner = fields.get({_DATA: 5, _DICTIONARY: 7, _DATA_V2: 8}.get(kind, 0), {})
    if not isinstance(inner, dict):
        return None
    encoding = inner.get(4 if kind == _DATA_V2 else 2, 0)
    num_values = inner.get(1, 0)
    return _Page(
        kind=kind,
        num_bytes=num_bytes,
        packed_bytes=packed_bytes,
        num_values=num_values if isinstance(num_values, int) else -1,
        encoding=encoding if isinstance(encoding, int) else -1,
        header_bytes=header_bytes,
    )


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise _Short
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def _number(data: bytes, place: int) -> tuple[int, int]:
    value, place = _varint(data, place)
    return (value >> 1) ^ -(value & 1), place


def _struct(data: bytes, place: int, depth: int = 0) -> tuple[dict[int, Any], int]:
    """Return the fields of a struct by their numbers, and where it ends."""
    fields: dict[int, Any] = {}
    number = 0
    while True:
        if place >= len(data) or depth > _MAX_DEPTH:
            raise _Short
        byte = data[place]
        place += 1
        if byte == 0:
            return fields, place
        if byte >> 4:
            number += byte >> 4
        else:
            number, place = _number(data, place)
        fields[number], place = _value(data, place, byte & 0x0F, depth)


def _value(data: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    """Return a value, or None for one that nothing depends on, and where it ends."""
    if kind in (_TRUE, _FALSE):
        return kind == _TRUE, place
    if kind in (_I16, _I32, _I64):
        return _number(data, place)
    if kind == _STRUCT:
        return _struct(data, place, depth + 1)
    if kind == _BINARY:
        length, place = _varint(data, place)
        end = _within(data, place + length)
        return data[place:end], end
    if kind in (_BYTE, _DOUBLE):
        return None, _within(data, place + (1 if kind == _BYTE else 8))
    if kind in (_LIST, _SET):
        return _list(data, place, depth)
    raise _Short  # maps, which Parquet has none of


def _list(data: bytes, place: int, depth: int) -> tuple[list[Any], int]:
    """Return a list's values, and where it ends."""
    _within(data, place + 1)
    count, kind = data[place] >> 4, data[place] & 0x0F
    place += 1
    if count == _LONG_LIST:
        count, place = _varint(data, place)
    values: list[Any] = []
    for _ in range(count):
        if kind in (_TRUE, _FALSE):  # within a list a byte each
            value, place = None, _within(data, place + 1)
        else:
            value, place = _value(data, place, kind, depth + 1)
        values.append(value)
    return values, place


def _within(data: bytes, place: int) -> int:
    if place > len(data):
        raise _Short
    return place
