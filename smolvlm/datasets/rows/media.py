"""The pictures and clips that a row names: by path, by bytes, by frames. None is opened here."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.errors import SampleError
from smolvlm.media.downloads import kept_file
from smolvlm.media.kinds import begins_like_picture, ending_of, is_picture_ending
from smolvlm.records import ImageRef, Media, VideoRef

Kind = Literal["image", "video"]
Bounds = tuple[object, object]
"""A clip's `start_s` and `end_s` as the row writes them."""
_MEDIA_WORDS = "img|image|picture|pic|photo|audio|sound|speech|video|clip|frame|media"
_MEDIA_ENDINGS = "path|file|filename|file_?path|url|uri|name|list|bytes|data|b64|base64"
_LOOKS_LIKE_MEDIA = re.compile(rf"^(?:{_MEDIA_WORDS})s?(?:_?(?:{_MEDIA_ENDINGS})s?)?$")
_READ_KEYS = frozenset({"image", "images", "video", "videos"})
_ADDRESS = re.compile(r"^(https?|s3|gs|ftp|hf)://", re.IGNORECASE)
_BEHIND_THE_PATH = re.compile(r"[?#].*", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedMedia:
    """What a row lists outside its text."""

    images: tuple[ImageRef, ...] = ()
    videos: tuple[VideoRef, ...] = ()

    def __len__(self) -> int:
        return len(self.images) + len(self.videos)

    def of(self, kind: Kind) -> tuple[Media, ...]:
        return self.images if kind == "image" else self.videos


def row_media(row: Mapping[str, object], *, spec: SourceSpec, media_is_named: bool) -> ListedMedia:
    """Return the media of a row's `image`, `images`, `video` and `videos`, in order.

    Args:
        row: with our column names.
        spec: of the source.
        media_is_named: the mixture says which column holds the media, so other keys that look like
            media are known not to be meant.

    Raises:
        SampleError: a key that looks like media and is not read, both columns of a kind at once, or
            a value that names no picture or clip.
    """
    for key, value in row.items():
        if (
            key not in _READ_KEYS
            and not media_is_named
            and value is not None
            and looks_like_media(key)
        ):
            fix = (
                f"name it in the source's `columns`: `{{image: {key}}}`, or rename it if it is no "
                f"picture"
            )
            raise SampleError(f"unknown key `{key}` looks like media", fix=fix)
    images = _one_of(row, "image", "images")
    videos = _one_of(row, "video", "videos")
    pictures = [] if images is None else images if isinstance(images, list) else [images]
    bounds = (row.get("start_s"), row.get("end_s"))
    clips = () if videos is None else _clips(videos, bounds, spec=spec)
    return ListedMedia(
        images=tuple(image_ref(picture, spec=spec) for picture in pictures), videos=clips
    )


def _one_of(row: Mapping[str, object], one: str, several: str) -> object:
    first, second = row.get(one), row.get(several)
    if first is not None and second is not None:
        raise SampleError(f"both `{one}` and `{several}` are given", fix="keep one of the two")
    return first if second is None else second


def _clips(value: object, bounds: Bounds, *, spec: SourceSpec) -> tuple[VideoRef, ...]:
    """Return a row's clips: one, or a list of them; a list of pictures is one clip's frames."""
    are_frames = (
        isinstance(value, list)
        and bool(value)
        and all(_is_picture_name(member) for member in value)
    )
    members = value if isinstance(value, list) and not are_frames else [value]
    if len(members) != 1 and bounds != (None, None):
        what = f"`start_s` or `end_s` beside {len(members)} clips"
        raise SampleError(
            what, fix="write them with the clip: `{path: FILE, start_s: 2, end_s: 5}`"
        )
    return tuple(video_ref(member, spec=spec, bounds=bounds) for member in members)


def _is_picture_name(value: object) -> bool:
    """Say whether a member of a `video` list is one frame: a picture's bytes or name."""
    if isinstance(value, dict):
        value = value.get("path") if value.get("path") is not None else value.get("bytes")
    if isinstance(value, bytes):
        return begins_like_picture(value)
    if isinstance(value, str):
        name = _BEHIND_THE_PATH.sub("", value) if _ADDRESS.match(value) else value
        return is_picture_ending(ending_of(name))
    return isinstance(value, ImageRef)


@lru_cache(maxsize=4096)
def looks_like_media(key: str) -> bool:
    """Say whether a key such as `img`, `image_path` or `Audio` must be meant as media."""
    return _LOOKS_LIKE_MEDIA.match(key.lower().replace("-", "_")) is not None


def image_ref(value: object, *, spec: SourceSpec) -> ImageRef:
    """Return the picture that a value names: a path, an address, bytes, or a mapping with one.

    Raises:
        SampleError: an address that is not allowed, embedded base64, an empty path, or another kind
            of value.
    """
    if isinstance(value, ImageRef):
        return value
    return _reference(value, "a picture", spec=spec)


def video_ref(value: object, *, spec: SourceSpec, bounds: Bounds = (None, None)) -> VideoRef:
    """Return the clip that a value names: as `image_ref`, or by a list of frames.

    Args:
        value: as the row gives it; a mapping may carry `start_s` and `end_s` too.
        spec: of the source.
        bounds: begin and end in seconds that stand elsewhere in the row.

    Raises:
        SampleError: as `image_ref`; or bounds that are no times in order.
    """
    if isinstance(value, dict) and {"start_s", "end_s"} & value.keys():
        if bounds != (None, None):
            raise SampleError("`start_s` or `end_s` stands twice", fix="keep it in one place")
        bounds = (value.get("start_s"), value.get("end_s"))
    start_s, end_s = (
        _time(bound, name) for bound, name in zip(bounds, ("start_s", "end_s"), strict=True)
    )
    if start_s is not None and end_s is not None and start_s >= end_s:
        raise SampleError(f"start_s={start_s:g} is not before end_s={end_s:g}", fix="fix the times")
    if isinstance(value, VideoRef):
        return replace(value, start_s=start_s, end_s=end_s)
    frames = value.get("frames") if isinstance(value, dict) else value
    if isinstance(frames, list):
        if not frames:
            raise SampleError(
                "a clip is an empty list of frames", fix="list its frames, or take the row out"
            )
        clip = VideoRef(frames=tuple(image_ref(frame, spec=spec) for frame in frames))
    else:
        file = _reference(value, "a clip", spec=spec)
        clip = VideoRef(path=file.path, data=file.data, url=file.url)
    return replace(clip, start_s=start_s, end_s=end_s, source_fps=spec.source_fps)


def _time(value: object, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    raise SampleError(
        f"`{name}` is {value!r}, no time in seconds",
        fix="write a number, 0 or more, or leave it out",
    )


def _reference(value: object, kind: str, *, spec: SourceSpec) -> ImageRef:
    """Return what a value names: bytes, a file below the media root, or a fetched file."""
    if isinstance(value, dict):
        if isinstance(value.get("bytes"), bytes) and value["bytes"]:
            return ImageRef(data=value["bytes"])
        value = value.get("path")
    if isinstance(value, bytes) and value:
        return ImageRef(data=value)
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
    if address := _ADDRESS.match(value):
        can_be_fetched = address[1].lower() in ("http", "https")
        if can_be_fetched and spec.allow_urls:
            return ImageRef(path=kept_file(value), url=value)
        or_allow = (
            ", or set `data.allow_urls: true` if you trust the rows" if can_be_fetched else ""
        )
        fix = f"download it and give the file's path{or_allow}"
        raise SampleError(f"{kind} is an address, {value[:60]!r}", fix=fix)
    if value.startswith("data:"):
        raise SampleError(
            f"{kind} is embedded as base64 text", fix="save it as a file, or as bytes in Parquet"
        )
    path, is_inside = _file(spec.media_root, value)
    if not is_inside and not spec.allow_outside_root:
        raise SampleError(
            f"{kind} lies outside the folder of media: {value[:200]!r}",
            kind="outside_root",
            fix="set the source's `path` to a folder above it, or `data.allow_outside_root: true` "
            "if you trust them",
        )
    return ImageRef(path=path)


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
