"""One picture or clip as a row writes it: a path, an address, bytes, base64, an object with one of
them. Nothing is opened here."""

import os
import posixpath
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from smolvlm.config.problems import shown_path, shown_text, shown_value
from smolvlm.datasets.rows.clip_bounds import Bounds, joined_bounds, take_bounds
from smolvlm.datasets.rows.encoded import decoded, encoded_bytes, plain_bytes
from smolvlm.datasets.rows.fields import Fields, Reading
from smolvlm.datasets.rows.keys import RATE_KEYS
from smolvlm.datasets.rows.refusals import leave_unread
from smolvlm.datasets.rows.texts import kind_of
from smolvlm.errors import SampleError
from smolvlm.media.downloads import kept_file
from smolvlm.media.kinds import begins_like_picture, ending_of, is_picture_ending
from smolvlm.media.object_stores import is_store_address
from smolvlm.records import ImageRef, VideoRef

ADDRESS = re.compile(r"^(https?|s3|gs|gcs|az|abfs|ftp|hf)://", re.IGNORECASE)
_BEHIND_THE_PATH = re.compile(r"[?#].*", re.DOTALL)
_MOVING_PICTURES = frozenset({"apng", "avif", "gif", "webp"})
"""Endings of pictures that may be clips."""
_TEXT_DATA_KEYS = ("base64", "b64", "b64_json", "data")
_NAME_KEYS = ("path", "url", "image_url", "video_url", "file", "file_name", "filename")
_SAID_BY_THE_BYTES = ("type", "media_type", "mime_type", "format")
"""Keys of an object beside its bytes that the bytes say again."""
_MEDIA_TYPE = re.compile(r"^[A-Za-z0-9_.+/-]{1,40}$")
"""What such a key says: `image/png`, `base64`."""


def image_ref(value: object, reading: Reading) -> ImageRef:
    """Return the picture that a value names.

    Args:
        value: a path, an address, bytes, base64, or an object with one of them.
        reading: the row that it stands in.

    Raises:
        SampleError: an address that is not allowed, damaged base64, an empty path, a path outside
            the folder of media, or another kind of value.
    """
    if isinstance(value, ImageRef):
        _note_name(value.path, reading)
        return value
    return _reference(value, "a picture", reading)


def video_ref(value: object, reading: Reading, bounds: Bounds = Bounds()) -> VideoRef:  # noqa: B008 - frozen
    """Return the clip that a value names: as `image_ref`, or by a list of frames.

    Args:
        value: as the row gives it; an object may carry the clip's bounds too, and its `frames`.
        reading: the row that it stands in.
        bounds: those that stand elsewhere in the row.

    Raises:
        SampleError: as `image_ref`; or bounds that are no times in order.
    """
    reading.has_clip = True
    if isinstance(value, VideoRef):
        _note_name(value.path, reading)
        return replace(value, start_s=bounds.start_s, end_s=bounds.end_s)
    rate = reading.spec.source_fps
    if isinstance(value, dict):
        fields = reading.fields(value, "video.")
        bounds = joined_bounds(bounds, take_bounds(fields))
        frames = fields.take("frames") if value.get("frames") != [] else []
        if isinstance(frames, list):
            rate = _frame_rate(fields) or rate
        elif frames is not None:
            what = f"a clip's `frames` are {kind_of(frames)}, not a list of pictures"
            raise SampleError(what, fix=f"list them; or {leave_unread('frames')}")
        file = None if isinstance(frames, list) else _clip_of_object(fields, reading)
    else:
        frames = value
        file = None if isinstance(value, list) else _reference(value, "a clip", reading)
    if file is not None:
        _check_is_clip(file)
        clip = VideoRef(
            path=file.path,
            data=file.data,
            url=file.url,
            span=file.span,
            allow_private_url=file.allow_private_url,
            root=None if reading.spec.allow_outside_root else reading.spec.media_root,
        )
    else:
        assert isinstance(frames, list)
        if not frames:
            raise SampleError(
                "a clip is an empty list of frames", fix="list its frames, or take the row out"
            )
        clip = VideoRef(frames=tuple(image_ref(frame, reading) for frame in frames))
    return replace(clip, start_s=bounds.start_s, end_s=bounds.end_s, source_fps=rate)


def _check_is_clip(file: ImageRef | VideoRef) -> None:
    """Refuse a file that is a still picture by its name.

    Raises:
        SampleError: it is one.
    """
    ending = ending_of(file.path) if file.path is not None else ""
    if is_picture_ending(ending) and ending not in _MOVING_PICTURES:
        what = f"a clip is a picture by its name, {shown_path(file.name)!r}"
        raise SampleError(
            what, fix="list the clip's frames, `video: [0.png, 1.png]`, or name it `image`"
        )


def _clip_of_object(fields: Fields, reading: Reading) -> ImageRef | VideoRef:
    """Return what an object names; in a shard's row that is a member already."""
    key = next(iter(fields.given((*_NAME_KEYS, "video"))), "")
    if isinstance(fields.peek(key), VideoRef):
        clip = fields.take(key)
        assert isinstance(clip, VideoRef)
        _note_name(clip.path, reading)
        return clip
    return _of_object(fields, "a clip", reading)


def _frame_rate(fields: Fields) -> float | None:
    key, value = fields.take_one(RATE_KEYS, what="the frames' rate")
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6:
        return float(value)
    raise SampleError(
        f"`{key}` is {shown_value(value)}, no rate", fix="write frames a second, above 0"
    )


def is_picture_name(value: object) -> bool:
    """Say whether a member of a `video` list is one frame: a picture's bytes or name."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("path") is not None else value.get("bytes")
    if isinstance(value, bytes):
        return begins_like_picture(value)
    if isinstance(value, str):
        return is_picture_ending(ending_of(file_name_of(value)))
    return isinstance(value, ImageRef)


def file_name_of(text: str) -> str:
    """Return the last part of a path or an address."""
    if ADDRESS.match(text):
        text = _BEHIND_THE_PATH.sub("", text)
    return text.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _note_name(path: Path | str | None, reading: Reading) -> None:
    if path is not None:
        reading.file_names.add(file_name_of(str(path)))


def _reference(value: object, kind: str, reading: Reading) -> ImageRef:
    """Return what a value names: bytes, a file below the media root, or a fetched file."""
    if isinstance(value, dict):
        return _of_object(reading.fields(value, _place(kind)), kind, reading)
    if isinstance(value, bytes) and value:
        return ImageRef(data=plain_bytes(value, kind))
    if not isinstance(value, str) or not value.strip():
        shown = (
            "an empty text"
            if isinstance(value, str)
            else "null"
            if value is None
            else f"of type {type(value).__name__}"
        )
        fix = "give a path, or encoded bytes; leave the key out of a text row"
        raise SampleError(f"{kind} is {shown}", fix=fix)
    if value.startswith("data:") or encoded_bytes(value) is not None:
        return ImageRef(data=decoded(value, kind))
    _note_name(value, reading)
    return _of_name(value, kind, reading)


def _place(kind: str) -> str:
    return "image." if kind == "a picture" else "video."


def _of_object(fields: Fields, kind: str, reading: Reading) -> ImageRef:
    """Return what an object names: its bytes, else base64 text, else a path or an address."""
    name_key, name = fields.take_one(_NAME_KEYS, what="the file")
    data = fields.take("bytes")
    if data is not None and data not in (b"", ""):
        return _of_bytes(data, name_key, name, kind, reading)
    for key in _SAID_BY_THE_BYTES:
        if isinstance(said := fields.peek(key), str) and _MEDIA_TYPE.match(said):
            fields.take(key)
    _, text = fields.take_one(_TEXT_DATA_KEYS, what="the bytes")
    if text is not None and name is None:
        if isinstance(text, bytes):
            return ImageRef(data=text)
        if not isinstance(text, str):
            raise SampleError(f"{kind} is of type {type(text).__name__}", fix="give base64 text")
        return ImageRef(data=decoded(text, kind))
    if text is not None:
        what = f"{kind} has both `{name_key}` and bytes as text"
        raise SampleError(what, fix="keep one of the two")
    return _of_named(name, fields, kind, reading)


def _of_bytes(data: object, name_key: str, name: object, kind: str, reading: Reading) -> ImageRef:
    """Return what an object's bytes are; a name beside them is only what they are called."""
    if not isinstance(data, bytes | str):
        what = f"{kind}'s `bytes` are {kind_of(data)}"
        raise SampleError(what, fix="give encoded bytes or base64 text, or null beside a path")
    if name is not None and not isinstance(name, str):
        what = f"{kind} has bytes, and a `{name_key}` that is no text"
        raise SampleError(what, fix="keep one of the two, or write the file's name as text")
    _note_name(name, reading)
    return ImageRef(data=decoded(data, kind) if isinstance(data, str) else data)


def _of_named(name: object, fields: Fields, kind: str, reading: Reading) -> ImageRef:
    """Return what an object's path, address or inner object names."""
    if isinstance(name, ImageRef):
        _note_name(name.path, reading)
        return name
    if isinstance(name, dict):  # {image_url: {url: ...}}
        return _of_object(reading.fields(name, _place(kind)), kind, reading)
    if name is not None:
        return _reference(name, kind, reading)
    what = f"{kind} is an object without bytes, a path or an address"
    keys = ", ".join(shown_text(key) for key in list(fields)[:8])
    fix = f"give one of them, or null in a row without it; its keys are: {keys}"
    raise SampleError(what, fix=fix)


def _of_name(value: str, kind: str, reading: Reading) -> ImageRef:
    """Return a file by its path or address."""
    spec = reading.spec
    if value.lower().startswith("file:"):
        value = _path_of_uri(value, kind)
    if address := ADDRESS.match(value):
        return _of_address(value, address[1].lower(), kind, reading)
    if spec.media_url is not None and not (spec.allow_outside_root and os.path.isabs(value)):
        url = joined_address(spec.media_url, value)
        if url is None:
            raise _outside(value, kind, is_local=False)
        return ImageRef(path=kept_file(url), url=url, allow_private_url=True)
    path, is_inside = _file(spec.media_root, value)
    if not is_inside and not spec.allow_outside_root:
        raise _outside(value, kind, is_local=True)
    return ImageRef(path=path)


def _of_address(value: str, protocol: str, kind: str, reading: Reading) -> ImageRef:
    """Return what lies at an address, where it may be fetched: those of the source's own folder may
    in any case."""
    spec = reading.spec
    can_be_fetched = protocol in ("http", "https") or is_store_address(value)
    root = spec.media_url
    is_own = root is not None and joined_address(root, value.removeprefix(f"{root}/")) == value
    if can_be_fetched and (is_own or spec.urls != "none"):
        is_private_allowed = is_own or spec.urls == "all"
        return ImageRef(path=kept_file(value), url=value, allow_private_url=is_private_allowed)
    or_allow = ", or set `data.allow_urls: true` if you trust the rows" if can_be_fetched else ""
    fix = f"download it and give the file's path{or_allow}"
    raise SampleError(f"{kind} is an address, {shown_value(value)}", fix=fix)


def joined_address(root: str, name: str) -> str | None:
    """Return the address of a relative path from a folder's; None where it leads out of it."""
    path = posixpath.normpath(name.replace("\\", "/"))
    if path.startswith(("/", "../")) or path in ("..", ".") or ADDRESS.match(name):
        return None
    if root.lower().startswith("http"):  # in an address these begin something else
        path = path.replace("#", "%23").replace("?", "%3F")
    return f"{root}/{path}"


def _outside(value: str, kind: str, *, is_local: bool) -> SampleError:
    or_allow = ", or `data.allow_outside_root: true` if you trust them" if is_local else ""
    return SampleError(
        f"{kind} lies outside the folder of media: {shown_path(value)!r}",
        kind="outside_root",
        fix=f"set the source's `path` to a folder above it{or_allow}",
    )


def _path_of_uri(value: str, kind: str) -> str:
    try:
        return unquote(urlsplit(value).path)
    except ValueError as error:  # a bracket in the place of the host
        what = f"{kind} is no address of a file, {shown_value(value)}: {error}"
        raise SampleError(what, fix="write the path alone") from None


@lru_cache(maxsize=65536)
def _file(media_root: Path, value: str) -> tuple[Path, bool]:
    """Return a path below the media root, and whether it does lie there, links followed.

    Remembered, because the rows about one picture are many and mostly neighbours.
    """
    path = media_root / value
    try:
        is_inside = Path(os.path.realpath(path)).is_relative_to(_real_root(media_root))
    except ValueError:  # a null byte: opening it says so
        is_inside = True
    return path, is_inside


@lru_cache(maxsize=256)
def _real_root(media_root: Path) -> Path:
    return Path(os.path.realpath(media_root))
