"""The pictures that a row lists, and where in its text they go. Nothing is opened here.

In a user's plain text `<image>` marks a picture's place where the row lists pictures; without any mark, all of them go
in front of the first user turn. The characters around a mark are kept exactly as written.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from smolvlm.errors import SampleError
from smolvlm.records import Block, ImageRef, Role, Turn

PLACEHOLDER = "<image>"
VIDEO_PLACEHOLDER = "<video>"
_MEDIA_WORDS = "img|image|picture|pic|photo|audio|sound|speech|video|clip|frame|media"
_MEDIA_ENDINGS = "path|file|filename|file_?path|url|uri|name|list|bytes|data|b64|base64"
_LOOKS_LIKE_MEDIA = re.compile(rf"^(?:{_MEDIA_WORDS})s?(?:_?(?:{_MEDIA_ENDINGS})s?)?$")
_READ_KEYS = frozenset({"image", "images", "video", "videos"})
_ADDRESS = re.compile(r"^(https?|s3|gs|ftp|hf)://", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowContext:
    """What every reader of a row's parts needs to know."""

    where: str
    """`file:row`."""
    media_root: Path
    allow_outside_root: bool = False

    def error(self, what: str, *, fix: str) -> SampleError:
        return SampleError(what, where=self.where, fix=fix)


def row_images(row: Mapping[str, Any], *, context: RowContext, media_is_named: bool) -> tuple[ImageRef, ...]:
    """Return the pictures of a row's `image` or `images`, in order.

    Args:
        row: with our column names.
        context: for messages and paths.
        media_is_named: the mixture says which column holds the pictures, so other keys that look like media are known
            not to be meant.

    Raises:
        SampleError: video, a key that looks like media and is not read, both columns at once, or no picture in a value.
    """
    for key, value in row.items():
        if key not in _READ_KEYS and not media_is_named and value is not None and looks_like_media(key):
            fix = f"name it in the source's `columns`: `{{image: {key}}}`, or rename it if it is no picture"
            raise context.error(f"unknown key `{key}` looks like media", fix=fix)
    for key in ("video", "videos"):
        if row.get(key):
            raise video_error(context, named=f"`{key}`")
    image, images = row.get("image"), row.get("images")
    if image is not None and images is not None:
        raise context.error("both `image` and `images` are given", fix="keep one of the two")
    value = image if images is None else images
    if value is None:
        return ()
    members = value if isinstance(value, list) else [value]
    return tuple(image_ref(member, context=context) for member in members)


@lru_cache(maxsize=4096)
def looks_like_media(key: str) -> bool:
    """Say whether a key such as `img`, `image_path` or `Audio` must be meant as media."""
    return _LOOKS_LIKE_MEDIA.match(key.lower().replace("-", "_")) is not None


def video_error(context: RowContext, *, named: str) -> SampleError:
    return context.error(f"the row has video ({named}), which is not available in this version", fix="take the row out")


def image_ref(value: Any, *, context: RowContext) -> ImageRef:
    """Return the picture that a path, encoded bytes, or a mapping with `bytes` or `path` names.

    Raises:
        SampleError: an address, embedded base64, an empty path, or another kind of value.
    """
    if isinstance(value, ImageRef):
        return value
    if isinstance(value, bytes) and value:
        return ImageRef(data=value)
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes) and value["bytes"]:
            return ImageRef(data=value["bytes"])
        value = value.get("path")
    if not isinstance(value, str) or not value.strip():
        kind = (
            "an empty text"
            if isinstance(value, str)
            else "null"
            if value is None
            else f"of type {type(value).__name__}"
        )
        raise context.error(
            f"a picture is {kind}", fix="give a path, or encoded bytes; leave the key out of a text row"
        )
    if _ADDRESS.match(value):
        raise context.error(f"a picture is an address, {value[:60]!r}", fix="download it and give the file's path")
    if value.startswith("data:"):
        raise context.error("a picture is embedded as base64 text", fix="save it as a file, or as bytes in Parquet")
    found, is_inside = _file_ref(context.media_root, value)
    if not is_inside and not context.allow_outside_root:
        raise context.error(
            f"a picture lies outside the folder of pictures: {value[:200]!r}",
            fix="set the source's `path` to a folder above it, or `data.allow_outside_root: true` if you trust them",
        )
    return found


@lru_cache(maxsize=65536)
def _file_ref(media_root: Path, value: str) -> tuple[ImageRef, bool]:
    """Return the picture at a path, and whether it lies below the media root, links followed.

    Remembered, because the rows about one picture are many and mostly neighbours.
    """
    path = media_root / value
    try:
        is_inside = Path(os.path.realpath(path)).is_relative_to(_real_root(media_root))
    except ValueError:  # a null byte: opening it says so
        is_inside = True
    return ImageRef(path=path), is_inside


@lru_cache(maxsize=256)
def _real_root(media_root: Path) -> Path:
    return Path(os.path.realpath(media_root))


class Place:
    """Marks, in a draft turn, where the next listed picture goes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DraftTurn:
    """A turn as the row writes it: pictures are either inline, or a `Place` to be filled from the row's list."""

    role: Role
    blocks: tuple[Block | Place, ...]


def split_at_marks(text: str) -> tuple[str | Place, ...]:
    """Return the text's pieces with a `Place` for each `<image>`; every other character is kept.

    "<image>\\nWhat?" gives (Place, "\\nWhat?").
    """
    pieces: list[str | Place] = []
    for number, piece in enumerate(text.split(PLACEHOLDER)):
        if number:
            pieces.append(Place())
        if piece:
            pieces.append(piece)
    return tuple(pieces)


def fill_places(drafts: Sequence[DraftTurn], images: Sequence[ImageRef], *, context: RowContext) -> tuple[Turn, ...]:
    """Return the turns with the listed pictures in their places.

    Args:
        drafts: the row's turns, at least one of the user.
        images: the pictures that the row lists, in order. With no place and no inline picture in the turns, all of them
            go in front of the first user turn.
        context: for messages.

    Raises:
        SampleError: not as many places as listed pictures.
    """
    kinds = [type(block) for draft in drafts for block in draft.blocks]
    num_places = kinds.count(Place)
    has_inline = ImageRef in kinds
    in_front = tuple(images) if images and not num_places and not has_inline else ()
    if not in_front and num_places != len(images):
        marks = f"{num_places} {PLACEHOLDER} placeholder{'' if num_places == 1 else 's'} in the user's text"
        what = f"{marks}, {len(images)} image{'' if len(images) == 1 else 's'} listed"
        raise context.error(what, fix="make the two agree, or set `on_bad_sample: skip` on this source")
    if not num_places and not in_front:
        return tuple(Turn(role=draft.role, blocks=cast("tuple[Block, ...]", draft.blocks)) for draft in drafts)
    remaining = iter(images)
    turns: list[Turn] = []
    for draft in drafts:
        if in_front and draft.role == "user":
            filled, in_front = (*in_front, *cast("tuple[Block, ...]", draft.blocks)), ()
        else:
            filled = tuple(next(remaining) if isinstance(block, Place) else block for block in draft.blocks)
        turns.append(Turn(role=draft.role, blocks=filled))
    return tuple(turns)
