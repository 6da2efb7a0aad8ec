"""What tells a row from what it was: digests of its text, and of the files that it names.

In: a conversation while it is measured, and its media's content keys once their bytes are read.
Out: numbers of 64 bits (XXH3; no defence against somebody who wants two rows to be equal). Files
are named from the source's folder of media, so rows that are moved with them keep their digests.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import xxhash
from jaxtyping import Int64

from smolvlm.media.video.frame_folders import list_pictures
from smolvlm.records import Conversation, ImageRef, Media, VideoRef

DIGESTS = ("content", "media_sizes", "media_times")
"""The columns of `RowDigests`, as measured sizes hold them too."""
NO_MEDIA = 0
"""In place of a digest where a row names no file, or its bytes are unread; no digest is 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RowDigests:
    """Of many rows, a column each (axis `row`)."""

    content: Int64[np.ndarray, " row"]
    """Texts, roles, weights, which media where; and the bytes of media that the row carries."""
    media_sizes: Int64[np.ndarray, " row"]
    """Sizes of the files that the row names; `NO_MEDIA` where it names none."""
    media_times: Int64[np.ndarray, " row"]
    """When they were changed last; what was fetched from an address has no time."""

    def __len__(self) -> int:
        return len(self.content)


class MediaState(NamedTuple):
    """The files that a row names, when they were read."""

    row: int
    """Its number among the measured rows."""
    read: int
    """Digest of their bytes."""
    sizes: int
    """As in `RowDigests`; so are the times."""
    times: int


def content_digest(row: Conversation, media_root: Path | None) -> int:
    """Return the digest of what a row says, and of which media it names where.

    Args:
        row: as read.
        media_root: the folder from which its files are named; None names them whole.
    """
    digest = xxhash.xxh3_64()
    for turns in row.branches:
        digest.update(b"branch")
        for turn in turns:
            digest.update(f"\0{turn.role} {turn.weight!r} {len(turn.blocks)}\0".encode())
            for block in turn.blocks:
                described = (
                    block.encode("utf-8", "surrogatepass")
                    if isinstance(block, str)
                    else _described(block, media_root)
                )
                # With its length in front no text can pass for what follows it.
                digest.update(b"%d %d\0" % (isinstance(block, str), len(described)))
                digest.update(described)
    return _number(digest)


def media_sizes_and_times(media: Sequence[Media]) -> tuple[int, int]:
    """Return digests of the sizes, and of the times of change, of the files that media name.

    A file that is not there counts as empty: what opens it says so.
    """
    sizes, times = xxhash.xxh3_64(), xxhash.xxh3_64()
    has_files = False
    for medium in media:
        for path, is_fetched in _files(medium):
            try:
                status = os.stat(path)
                size, time_ns = status.st_size, status.st_mtime_ns
            except (OSError, ValueError):
                size = time_ns = 0
            sizes.update(b"%d\0" % size)
            times.update(b"%d\0" % (0 if is_fetched else time_ns))
            has_files = True
    return (_number(sizes), _number(times)) if has_files else (NO_MEDIA, NO_MEDIA)


def media_state(
    row: int, media: Sequence[Media], key_of: Callable[[Media], bytes]
) -> MediaState | None:
    """Return what the files of one row are; None where it names none.

    Args:
        row: its number.
        media: its pictures and clips.
        key_of: returns the content key of one.
    """
    named = [key_of(medium) for medium in media if names_file(medium)]
    if not named:
        return None
    read = _number(xxhash.xxh3_64(b"".join(named)))
    return MediaState(row, read, *media_sizes_and_times(media))


def names_file(medium: Media) -> bool:
    """Say whether a picture or a clip lies in files, and not in its row alone."""
    return any(True for _ in _files(medium, lists_folders=False))


def _files(medium: Media, *, lists_folders: bool = True) -> Iterator[tuple[Path, bool]]:
    """Yield the files of a medium, and of each whether it was fetched from an address."""
    if isinstance(medium, VideoRef):
        frames = list_pictures(medium) if lists_folders else medium.frames
        if frames:
            for frame in frames:
                yield from _files(frame)
            return
    if medium.path is not None:
        yield medium.path, medium.url is not None


def _described(medium: Media, media_root: Path | None) -> bytes:
    if isinstance(medium, ImageRef):
        return b"image " + _origin(medium, media_root)
    part = f"video {medium.source_fps!r} {medium.start_s!r} {medium.end_s!r} "
    if not medium.frames:
        return part.encode() + _origin(medium, media_root)
    frames = b"\0".join(_origin(frame, media_root) for frame in medium.frames)
    return part.encode() + b"frames " + frames


def _origin(medium: Media, media_root: Path | None) -> bytes:
    """Return where a medium comes from, or the digest of the bytes that the row carries."""
    if medium.url is not None:
        return b"url " + medium.url.encode("utf-8", "surrogatepass")
    if medium.path is None:
        return b"bytes " + xxhash.xxh3_64_digest(medium.data or b"")
    return b"file " + os.fsencode(f"{_relative(medium.path, media_root)}\0{medium.span or ''}")


def _relative(path: Path, root: Path | None) -> str:
    name = str(path)
    if root is None:
        return name
    prefix = f"{root}{os.sep}"
    return name[len(prefix) :] if name.startswith(prefix) else os.path.relpath(name, root)


def _number(digest: xxhash.xxh3_64) -> int:
    """Return a digest as a signed number, never `NO_MEDIA`."""
    return int.from_bytes(digest.digest(), "little", signed=True) or 1
