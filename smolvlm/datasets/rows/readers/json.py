"""JSON files cut into rows as they stream by: the text of each row, never the file as a whole.

In: an open file. Out: (row number, JSON text) pairs. JSON lines are cut at newlines and not looked
into; a JSON list is cut by the decoder itself, a few megabytes at a time.
"""

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, BinaryIO

from smolvlm.config.problems import shown_text
from smolvlm.datasets.rows.depth import MAX_DEPTH, is_too_deep, too_deep
from smolvlm.datasets.rows.readers.json_object import no_list
from smolvlm.datasets.rows.readers.streams import (
    MAX_ROW_BYTES,
    OversizeRow,
    lines_of,
    oversize_row,
)
from smolvlm.errors import SampleError, located

CHUNK_BYTES = 4 << 20
MAX_ROW_VALUES = 1 << 22
"""Of commas and brackets in the text of a row above a megabyte: three bytes of `[],` take sixty of
memory."""
_COUNTED_BYTES = 1 << 20
_EDGE_CHARACTERS = 64
"""More than a word or an escape that the window cuts in two."""
_UNTERMINATED = "Unterminated string"
"""What is said of a string that may go on behind the window."""
_DECODER = json.JSONDecoder(parse_int=str)
"""Only finds where values end; numbers stay text, since Python refuses those of very many
digits."""
_NUMBER_TO_THE_EDGE = re.compile(r"[-+.eE0-9]*\Z")
_SPACE = re.compile(r"[ \t\n\r]*")


def read_json(text: str | bytes) -> Any:
    """Return the value that JSON text holds.

    Raises:
        SampleError: an object has a key twice, there are very many values, or they are nested too
            deeply.
        ValueError: it is no JSON; as `json.loads`.
    """
    if len(text) > _COUNTED_BYTES:
        check_values(text)
    try:
        value = json.loads(text, object_pairs_hook=_without_twice)
    except RecursionError:
        raise too_deep() from None
    if _num_marks(text, "[", "{") > MAX_DEPTH and is_too_deep(value):
        raise too_deep()
    return value


def check_values(text: str | bytes) -> None:
    """Refuse a row that would be millions of values.

    Raises:
        SampleError: it would.
    """
    if _num_marks(text, ",", "[", "{") > MAX_ROW_VALUES:
        what = f"the row has more than {MAX_ROW_VALUES:,} values (commas and brackets)"
        fix = "write it as several rows, and media as files"
        raise SampleError(what, kind="too_large_row", fix=fix)


def _num_marks(text: str | bytes, *marks: str) -> int:
    if isinstance(text, bytes):
        return sum(text.count(mark.encode()) for mark in marks)
    return sum(map(text.count, marks))


def _without_twice(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        what = f"the key `{shown_text(key)}` stands twice in one object"
        raise SampleError(what, fix="keep one of the two: the first would be lost")
    return content


def json_lines(
    stream: BinaryIO, *, max_row_bytes: int = MAX_ROW_BYTES
) -> Iterator[tuple[int, bytes | OversizeRow]]:
    """Yield (line number, text) of each line with something on it; blank lines are no rows.

    A message's row number is the line's, so that an editor finds it.
    """
    for number, line in enumerate(lines_of(stream, max_row_bytes=max_row_bytes), start=1):
        if isinstance(line, OversizeRow):
            yield number, line
            continue
        text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if text.strip():
            yield number, text.rstrip(b"\r\n")


def json_list(
    stream: BinaryIO, *, label: str, max_row_bytes: int = MAX_ROW_BYTES
) -> Iterator[tuple[int, bytes]]:
    """Yield (place in the list, text) of each element of a JSON list, counted from 1.

    Raises:
        SampleError: not a list, not JSON, not UTF-8, or a row that is too large; names the row
            where reading stopped.
    """
    text = _Window(stream, label=label, max_row_bytes=max_row_bytes)
    if text.next_character() != "[":
        raise no_list(text.ahead(), where=label)
    text.skip(1)
    number = 0
    while not (text.next_character() == "]" and not number):
        number += 1
        where = f"{label}:{number}"
        with located(where):
            element = text.element()
        yield number, element
        character = text.next_character()
        if character == "]":
            break
        if character != ",":
            what = (
                "no comma after the row"
                if character
                else "the list ends without its closing bracket"
            )
            raise SampleError(
                what,
                kind="bad_file",
                where=where,
                fix="fix the file here; it may have been cut short",
            )
        text.skip(1)
    text.skip(1)
    if text.next_character():
        raise SampleError(
            "text after the list's end", kind="bad_file", where=label, fix="keep one list in a file"
        )


class _Window:
    """The part of a file's text that is being read, and where it lies in the file."""

    def __init__(self, stream: BinaryIO, *, label: str, max_row_bytes: int) -> None:
        self._stream = stream
        self._max_row_bytes = max_row_bytes
        self._label = label
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text = ""
        self._aside = ""
        """Text behind the window that was read already."""
        self._position = 0
        self._bytes_read = 0
        self._lines_before = 0
        self._columns_before = 0
        self._is_whole = False

    def next_character(self) -> str:
        """Return the next character that is no space, staying in front of it; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._position)
            assert match is not None, "the pattern matches the empty text"
            self._position = match.end()
            if self._position < len(self._text) or not self._more():
                return self._text[self._position : self._position + 1]

    def ahead(self) -> str:
        """Return the text that follows, as far as it was read; nothing of it is passed."""
        return self._text[self._position :]

    def skip(self, count: int) -> None:
        self._position += count

    def element(self) -> bytes:
        """Return the text of the value that begins here, and go behind it."""
        self.next_character()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._position)
            except json.JSONDecodeError as error:
                if self._is_final(error) or not self._more():
                    raise self._not_json(error) from None
                continue
            except RecursionError:
                raise too_deep() from None
            # A number at the window's edge may go on behind it, although "1" of "1." and "1e" is
            # one already.
            if not _NUMBER_TO_THE_EDGE.match(self._text, end) or not self._more():
                break
        element = self._text[self._position : end].encode()
        if len(element) > self._max_row_bytes:
            raise oversize_row(len(element), self._max_row_bytes)
        self._position = end
        self._set_aside()
        return element

    def _is_final(self, error: json.JSONDecodeError) -> bool:
        """Say whether what is wrong with a row stays wrong however the file goes on.

        Raises:
            SampleError: the row ends nowhere in the window, and that is more than a row may have.
        """
        is_within = error.pos < len(self._text) - _EDGE_CHARACTERS
        if is_within and not error.msg.startswith(_UNTERMINATED):
            return True
        num_ahead = len(self._text) - self._position
        if num_ahead > max(self._max_row_bytes, CHUNK_BYTES):
            raise oversize_row(num_ahead, self._max_row_bytes)
        if num_ahead > CHUNK_BYTES:
            check_values(self._text[self._position :])
        return False

    def _set_aside(self) -> None:
        """Keep the window small behind a large row: a value is decoded before it is measured."""
        if len(self._text) - self._position > 2 * CHUNK_BYTES:
            self._drop_behind()
            self._aside = self._text[CHUNK_BYTES:] + self._aside
            self._text = self._text[:CHUNK_BYTES]

    def _more(self) -> bool:
        """Read on, dropping what lies behind; False at the file's end."""
        if self._aside:
            self._drop_behind()
            size = max(CHUNK_BYTES, len(self._text))
            self._text, self._aside = self._text + self._aside[:size], self._aside[size:]
            return True
        if self._is_whole:
            return False
        data = self._stream.read(max(CHUNK_BYTES, len(self._text) - self._position))
        self._is_whole = not data
        try:
            text = self._decoder.decode(data, final=self._is_whole)
        except UnicodeDecodeError as error:
            start = self._bytes_read + error.start - (len(error.object) - len(data))
            what = f"is not UTF-8 text (byte {start})"
            raise SampleError(
                what, kind="bad_file", where=self._label, fix="save it as UTF-8"
            ) from None
        self._bytes_read += len(data)
        self._drop_behind()
        self._text += text
        return True

    def _drop_behind(self) -> None:
        """Forget what was passed, but for where it ended."""
        behind = self._text[: self._position]
        if newlines := behind.count("\n"):
            self._lines_before += newlines
            self._columns_before = 0
        self._columns_before += len(behind) - (behind.rfind("\n") + 1)
        self._text = self._text[self._position :]
        self._position = 0

    def _not_json(self, error: json.JSONDecodeError) -> SampleError:
        column = error.colno + (self._columns_before if error.lineno == 1 else 0)
        return not_json(error.msg, line=error.lineno + self._lines_before, column=column)


def not_json(message: str, *, line: int, column: int) -> SampleError:
    what = f"not JSON: {message} (line {line}, column {column})"
    return SampleError(what, fix="fix the row; a file cut short ends like this")


def too_long_a_number() -> SampleError:
    return SampleError("a number of more digits than are read", fix="write it as text, in quotes")
