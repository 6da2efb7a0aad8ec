"""The pictures and clips that a row lists, and under which keys. None is opened here.

`image`, `images`, `video` and `videos` go before all. Without them, a row may number its pictures
(`image_1`, `image_2`), have one under another common name (`img`, `image_path`), name a file
(`file_name`), or name them by a file's ending (`jpg`, `mp4`), as shards do.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from smolvlm.datasets.rows.clip_bounds import Bounds, has_bounds, take_bounds
from smolvlm.datasets.rows.fields import Fields, Reading
from smolvlm.datasets.rows.keys import (
    CLIP_KEYS,
    FILE_KEYS,
    FRAME_CHOICE_KEYS,
    NUMBERED_CLIP,
    NUMBERED_PICTURE,
    PICTURE_KEYS,
    RATE_KEYS,
)
from smolvlm.datasets.rows.references import file_name_of, image_ref, is_picture_name, video_ref
from smolvlm.datasets.rows.refusals import leave_unread
from smolvlm.errors import SampleError
from smolvlm.media.kinds import ending_of, is_clip_ending, is_picture_ending
from smolvlm.records import ImageRef, Media, VideoRef

Kind = Literal["image", "video"]
_MEDIA_WORDS = "img|image|picture|pic|photo|audio|sound|speech|video|clip|frame|media"
_MEDIA_ENDINGS = "path|file|filename|file_?path|url|uri|name|list|bytes|data|b64|base64"
_LOOKS_LIKE_MEDIA = re.compile(rf"^(?:{_MEDIA_WORDS})s?(?:_?(?:{_MEDIA_ENDINGS})s?)?$")


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedMedia:
    """What a row lists outside its text."""

    images: tuple[ImageRef, ...] = ()
    videos: tuple[VideoRef, ...] = ()

    def __len__(self) -> int:
        return len(self.images) + len(self.videos)

    def of(self, kind: Kind) -> tuple[Media, ...]:
        return self.images if kind == "image" else self.videos


def row_media(fields: Fields, reading: Reading) -> ListedMedia:
    """Return the media that a row lists, in order.

    Args:
        fields: the row, with our column names.
        reading: the row that it is.

    Raises:
        SampleError: both keys of a kind at once, or a value that names no picture or clip.
    """
    if fields.given(("image", "images", "video", "videos")):
        images, clips = (
            _pictures(_value(fields, "image", "images")),
            _clips(_value(fields, "video", "videos")),
        )
    else:
        images, clips = _other_media(fields)
    if len(clips) > 1 and has_bounds(fields):
        what = f"`start_s` or `end_s` beside {len(clips)} clips"
        raise SampleError(
            what, fix="write them with the clip: `{path: FILE, start_s: 2, end_s: 5}`"
        )
    bounds = take_bounds(fields) if clips else Bounds()
    clips = _with_frame_choice(clips, fields) if clips else clips
    return ListedMedia(
        images=tuple(image_ref(picture, reading) for picture in images),
        videos=tuple(video_ref(clip, reading, bounds) for clip in clips),
    )


def _value(fields: Fields, one: str, several: str) -> object:
    if fields.has(one) and fields.has(several):
        raise SampleError(f"both `{one}` and `{several}` are given", fix="keep one of the two")
    return fields.take(one) if fields.has(one) else fields.take(several)


def _pictures(value: object) -> list[object]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _clips(value: object) -> list[object]:
    """Return a row's clips: one, or several; a list of pictures is one clip's frames."""
    if isinstance(value, list) and not all(map(is_picture_name, value)):
        return value
    return [] if value is None else [value]


def _with_frame_choice(clips: list[object], fields: Fields) -> list[object]:
    """Return a row's clips, a list of frames with the rate that the row gives for it.

    Raises:
        SampleError: the row says which frames of a file are shown.
    """
    choice = fields.given(FRAME_CHOICE_KEYS)
    if not choice:
        return clips
    if len(clips) == 1 and isinstance(clips[0], list) and set(choice) <= set(RATE_KEYS):
        return [{"frames": clips[0], **{key: fields.take(key) for key in choice}}]
    raise SampleError(
        f"`{choice[0]}` gives which frames are shown and is not read here",
        kind="unread_key",
        fix="set `data.fps` and `data.max_frames` for the run, `source_fps` for a source of "
        f"frames; or {leave_unread(choice[0])}",
    )


def _other_media(fields: Fields) -> tuple[list[object], list[object]]:
    """Return the pictures and clips of a row that lists them under no key of ours."""
    pictures, clips = _numbered(fields, NUMBERED_PICTURE), _numbered(fields, NUMBERED_CLIP)
    if pictures or clips:
        return pictures, clips
    one, other = fields.given(PICTURE_KEYS), fields.given(CLIP_KEYS)
    if len(one) + len(other) == 1:
        value = fields.take((one or other)[0])
        return ([value], []) if one else ([], [value])
    for key in fields:
        if not fields.has(key):
            continue
        ending = _ending_of_value(fields, key) if key in FILE_KEYS else key.lower()
        if is_picture_ending(ending):
            return [fields.take(key)], []
        if is_clip_ending(ending):
            return [], [fields.take(key)]
    return [], []


def _ending_of_value(fields: Fields, key: str) -> str:
    value = fields.peek(key)
    return ending_of(file_name_of(value)) if isinstance(value, str) else ""


def _numbered(fields: Fields, pattern: re.Pattern[str]) -> list[object]:
    """Return the values of numbered keys in the order of their numbers; absent ones are left
    out."""
    numbered = {key: int(match[1]) for key in fields if (match := pattern.match(key))}
    keys = sorted(numbered, key=lambda key: numbered[key])
    return [fields.take(key) for key in keys if fields.has(key)]


@lru_cache(maxsize=4096)
def looks_like_media(key: str) -> bool:
    """Say whether a key such as `img`, `image_path` or `Audio` must be meant as media."""
    return _LOOKS_LIKE_MEDIA.match(key.lower().replace("-", "_")) is not None
