"""What became of the values that no reader took: refused by name, media that would be lost, or
named as not read."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Literal

from smolvlm.datasets.rows.fields import Fields, Reading
from smolvlm.datasets.rows.keys import (
    REFUSED_IN_BLOCKS,
    REFUSED_IN_QUESTIONS,
    REFUSED_IN_ROWS,
    REFUSED_IN_TURNS,
    WEIGHT_KEYS,
)
from smolvlm.datasets.rows.media import looks_like_media
from smolvlm.datasets.rows.references import ADDRESS, encoded_bytes, file_name_of
from smolvlm.errors import SampleError
from smolvlm.media.kinds import ending_of, is_clip_ending, is_picture_ending, kind_of_bytes
from smolvlm.records import ImageRef, VideoRef

Level = Literal["row", "question_row", "turn", "block", "medium"]
_REFUSED: Mapping[Level, Mapping[str, str]] = {
    "row": REFUSED_IN_ROWS,
    "question_row": REFUSED_IN_QUESTIONS,
    "turn": REFUSED_IN_TURNS,
    "block": REFUSED_IN_BLOCKS,
    "medium": REFUSED_IN_BLOCKS,
}
MAX_NAME = 1024
"""Characters of the longest text that may be a file's name."""
_SHARED_ENDINGS = frozenset({"ts"})
"""Endings of clips that other files have too: there must be such a file."""
_SPACE = re.compile(r"\s")
_HEAD_BYTES = 64


def judge_unread(reading: Reading, *, asks_by_columns: bool) -> tuple[str, ...]:
    """Return the keys of a row, its turns and blocks that nothing was made of, sorted.

    Args:
        reading: the row, read.
        asks_by_columns: its question is a column, so that options and hints beside it would be
            left out of what is asked.

    Raises:
        SampleError: a key that changes what the row means, or one that holds a picture or a clip.
    """
    names: set[str] = set()
    media_is_named = not reading.spec.columns.keys().isdisjoint(
        ("image", "images", "video", "videos")
    )
    for fields in reading.opened:
        level = level_of(fields, asks_by_columns=asks_by_columns)
        for key, value in fields.unread():
            _refuse(fields, key, value, level)
            if not media_is_named and looks_like_media(key):
                if not _is_shown(value, reading):
                    raise _unread_media(fields, key)
            elif is_lost_medium(value, reading):
                raise _unread_media(fields, key)
            names.add(f"{fields.place}{key}")
    return tuple(sorted(names))


def level_of(fields: Fields, *, asks_by_columns: bool) -> Level:
    """Return what an object is, by its place."""
    if not fields.place:
        return "question_row" if asks_by_columns else "row"
    if "content" in fields.place:
        return "block"
    return "turn" if fields.place.endswith("[].") else "medium"


def _refuse(fields: Fields, key: str, value: object, level: Level) -> None:
    meaning = _REFUSED[level].get(key)
    if meaning is None or value == "" or (key in WEIGHT_KEYS and value == 1):
        return
    if level == "question_row":
        fix = f"say it with the question, `columns: {{question: [question, {key}]}}`, or leave "
    elif key in WEIGHT_KEYS and level == "row":
        fix = "write it in the turns that it is about, or leave "
    else:
        fix = "take it out of the row, or leave "
    raise SampleError(
        f"`{fields.place}{key}` gives {meaning} and is not read here",
        kind="unread_key",
        fix=f"{fix}it unread on purpose with `not_read: [{key}]` on the source",
    )


def _unread_media(fields: Fields, key: str) -> SampleError:
    if fields.place:
        cure = "write it as a block of the turn's content, or among the row's `images`"
    else:
        cure = f"name it in the source's `columns`: `{{image: {key}}}`"
    return SampleError(
        f"unknown key `{fields.place}{key}` looks like media",
        kind="unread_media",
        fix=f"{cure}, or rename it if it is no picture; `not_read: [{key}]` on the source leaves "
        "it out",
    )


def is_lost_medium(value: object, reading: Reading) -> bool:
    """Say whether a value that nobody read is, or holds, a picture or a clip that is not shown."""
    if isinstance(value, ImageRef | VideoRef):
        return True
    if isinstance(value, bytes):
        return kind_of_bytes(value[:_HEAD_BYTES]) is not None
    if isinstance(value, str):
        return _is_medium_text(value, reading.spec.media_root) and not _is_shown(value, reading)
    return any(is_lost_medium(member, reading) for member in _members(value))


def _members(value: object) -> Iterator[object]:
    members = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list | tuple):
        for member in members:  # pyright: ignore[reportGeneralTypeIssues]
            if isinstance(member, str | bytes | dict | list | tuple | ImageRef | VideoRef):
                yield member


def _is_shown(value: object, reading: Reading) -> bool:
    """Say whether a text names a file, or each of a list does, that the row shows already."""
    if isinstance(value, str):
        return len(value) <= MAX_NAME and file_name_of(value) in reading.file_names
    return isinstance(value, list) and all(_is_shown(member, reading) for member in value)


def _is_medium_text(text: str, media_root: Path) -> bool:
    """Say whether a text is a picture or clip written out, or the name of one."""
    if len(text) > MAX_NAME:
        return encoded_bytes(text) is not None
    if text.startswith("data:"):
        return text.startswith(("data:image/", "data:video/"))
    is_address = ADDRESS.match(text) is not None
    ending = ending_of(file_name_of(text) if is_address else text)
    is_ending = is_picture_ending(ending) or is_clip_ending(ending)
    if is_ending and ending not in _SHARED_ENDINGS and not _SPACE.search(text):
        return True
    if is_address:
        return False
    return encoded_bytes(text) is not None or _is_media_file(media_root, text)


@lru_cache(maxsize=65536)
def _is_media_file(media_root: Path, name: str) -> bool:
    """Say whether a name is that of a picture or a clip below the media root, or of a folder of
    frames there."""
    if not name or "\n" in name or "\0" in name:
        return False
    path = media_root / name
    try:
        if path.is_file():
            with path.open("rb") as file:
                return kind_of_bytes(file.read(_HEAD_BYTES)) is not None
        if len(PurePosixPath(name).parts) > 1 and path.is_dir():
            with os.scandir(path) as entries:
                return any(is_picture_ending(ending_of(entry.name)) for entry in entries)
    except (OSError, ValueError):  # a name that no file can have, or one that may not be read
        return False
    return False
