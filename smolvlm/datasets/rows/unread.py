"""What became of the values that no reader took: refused by name, media that would be lost, or
named as not read."""

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path, PurePosixPath

from smolvlm.config.yaml_text import dump_flow
from smolvlm.datasets.rows.blocks import block_kind
from smolvlm.datasets.rows.encoded import encoded_bytes
from smolvlm.datasets.rows.fields import Fields, Reading
from smolvlm.datasets.rows.keys import (
    COLUMN_NAMES,
    MASK_KEYS,
    NUMBERED_CLIP,
    NUMBERED_PICTURE,
    REFUSED_IN_BLOCKS,
    REFUSED_IN_MEDIA,
    REFUSED_IN_QUESTIONS,
    REFUSED_IN_ROWS,
    REFUSED_IN_TURNS,
    WEIGHT_KEYS,
    WRONG_ANSWER_KEYS,
)
from smolvlm.datasets.rows.media import looks_like_media
from smolvlm.datasets.rows.references import ADDRESS, file_name_of
from smolvlm.datasets.rows.refusals import (
    Level,
    leave_unread,
    question_columns,
    refused_key,
)
from smolvlm.datasets.rows.sources import file_columns
from smolvlm.datasets.rows.suspects import is_clip_part, is_further_text, misspelt_key
from smolvlm.errors import SampleError
from smolvlm.media.kinds import ending_of, is_clip_ending, is_picture_ending, kind_of_bytes
from smolvlm.records import ImageRef, VideoRef

_REFUSED: Mapping[Level, Mapping[str, str]] = {
    "row": REFUSED_IN_ROWS,
    "question_row": REFUSED_IN_QUESTIONS,
    "turn": REFUSED_IN_TURNS,
    "block": REFUSED_IN_BLOCKS,
    "medium": REFUSED_IN_MEDIA,
    "answer": {},
}
_SOUND = re.compile(r"audio|sound|speech")
_SOUND_ENDINGS = frozenset({"aac", "flac", "m4a", "mp3", "ogg", "opus", "wav"})
MAX_NAME = 1024
"""Characters of the longest text that may be a file's name."""
_SHARED_ENDINGS = frozenset({"ts"})
"""Endings of clips that other files have too: there must be such a file."""
_SPACE = re.compile(r"\s")
_HEAD_BYTES = 64


def judge_unread(reading: Reading) -> tuple[str, ...]:
    """Return the keys of a row, its turns and blocks that nothing was made of, sorted.

    Args:
        reading: the row, read. Where its question is a column, options and hints beside it would
            be left out of what is asked.

    Raises:
        SampleError: a key that changes what the row means, or seems to; or one that holds a
            picture or a clip.
    """
    names: set[str] = set()
    media_is_named = not reading.spec.columns.keys().isdisjoint(
        ("image", "images", "video", "videos")
    )
    for fields in reading.opened:
        level = level_of(fields, reading)
        for key, value in fields.unread():
            _refuse(fields, key, value, level=level, reading=reading)
            is_named_so = not media_is_named and looks_like_media(key)
            if is_named_so and not _is_shown(value, reading):
                raise _unread_media(fields, key, value, reading)
            if not is_named_so and is_lost_medium(value, reading):
                raise _unread_media(fields, key, value, reading)
            _refuse_suspect(fields, key, value, level=level, reading=reading)
            names.add(f"{fields.place}{key}")
    return tuple(sorted(names))


def level_of(fields: Fields, reading: Reading) -> Level:
    """Return what an object is, by its place and, of a block, by what it shows."""
    if not fields.place:
        return "question_row" if reading.asked_in is not None else "row"
    if fields.place.startswith("answers"):
        return "answer"
    if "content" in fields.place:
        return "medium" if block_kind(fields) in ("image", "video") else "block"
    return "turn" if fields.place.endswith("[].") else "medium"


def _refuse(fields: Fields, key: str, value: object, *, level: Level, reading: Reading) -> None:
    meaning = _REFUSED[level].get(key)
    if level in ("row", "question_row") and key in WRONG_ANSWER_KEYS and value is False:
        what = f"`{key}` is false: the row's answer is said to be wrong, and would be learned"
        fix = f"keep the others by `filter: {dump_flow({key: True})}`, or {leave_unread(key)}"
        raise SampleError(what, kind="unread_key", fix=fix)
    if meaning is None or value == "" or (key in WEIGHT_KEYS and value == 1):
        return
    if key in MASK_KEYS and not value:
        return
    raise refused_key(fields, key, meaning, level=level, reading=reading)


def _refuse_suspect(
    fields: Fields, key: str, value: object, *, level: Level, reading: Reading
) -> None:
    """Refuse a key that nobody knows and that seems to change what the row means.

    Raises:
        SampleError: it does.
    """
    if value == "":
        return
    name = f"`{fields.place}{key}`"
    if is_further_text(key, value, asks_by_columns=level == "question_row"):
        what = f"{name} seems to be a further question, answer or option, and is not read here"
        fix = (
            f"say options with the question, `columns: {question_columns(key, reading)}`; write "
            f"several questions as `messages`; or {leave_unread(key)}"
        )
    elif (meant := misspelt_key(key, level, has_clip=reading.has_clip)) is not None:
        what = f"unknown key {name}: did you mean `{meant}`?"
        fix = f"rename it, or {leave_unread(key)}"
    elif reading.has_clip and is_clip_part(key, value):
        what = f"{name} seems to say which part of the clip is meant, and is not read here"
        fix = f"write `start_s` and `end_s`, in seconds; or {leave_unread(key)}"
    else:
        return
    raise SampleError(what, kind="unread_key", fix=fix)


def _unread_media(fields: Fields, key: str, value: object, reading: Reading) -> SampleError:
    leave = leave_unread(key)
    if _SOUND.search(key.lower()) or _ending(value) in _SOUND_ENDINGS:
        what = f"`{fields.place}{key}` is sound, which no SmolVLM model hears"
        return SampleError(what, kind="unread_media", fix=leave)
    if fields.place:
        cure = "write it as a block of the turn's content, or among the row's `images`"
    else:
        cure = f"name it in the source's `columns`: `{_media_columns(key, value, reading)}`"
    return SampleError(
        f"unknown key `{fields.place}{key}` looks like media"
        if key not in COLUMN_NAMES
        else f"`{key}` holds media, and the source's `columns` read others in its place",
        kind="unread_media",
        fix=f"{cure}, or rename it if it is no picture; or {leave}",
    )


def _media_columns(key: str, value: object, reading: Reading) -> str:
    """Return what `columns` would read a key as, beside the row's other media of its kind."""
    is_clip = is_clip_ending(_ending(value)) or "video" in key.lower()
    one, several = ("video", "videos") if is_clip else ("image", "images")
    columns = reading.spec.columns
    used = [
        name for ours in (one, several) if ours in columns for name in file_columns(columns, ours)
    ]
    if not used:
        used = [
            name
            for opened in reading.opened
            if not opened.place
            for name in opened
            if name in opened.taken() and _names_media(name, is_clip=is_clip)
        ]
    return dump_flow({several: [*used, key]} if used else {one: key})


def _ending(value: object) -> str:
    return ending_of(value[-_HEAD_BYTES:]) if isinstance(value, str) else ""


def _names_media(key: str, *, is_clip: bool) -> bool:
    numbered = NUMBERED_CLIP if is_clip else NUMBERED_PICTURE
    is_kind = ("video" in key or "clip" in key) == is_clip
    return numbered.match(key) is not None or (is_kind and looks_like_media(key))


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
