"""Clips that are given as pictures: a list of them, or a folder."""

import os
from pathlib import Path

from smolvlm.errors import SampleError
from smolvlm.media.kinds import ending_of, is_picture_ending
from smolvlm.media.names import is_litter, natural_key
from smolvlm.media.video.files import unreadable
from smolvlm.records import ImageRef, VideoRef


def list_pictures(ref: VideoRef) -> tuple[ImageRef, ...] | None:
    """Return a clip's pictures in order, or None where it is a video file.

    A folder is sorted as people count, by `natural_key`: `frame_2` before `frame_10`, `img (2)`
    before `img (10)`. Hidden files and other programs' leavings are no frames.

    Raises:
        SampleError: a folder without pictures, or one that cannot be read; a frame that is a link
            out of the clip's root.
    """
    if ref.frames:
        return ref.frames
    if ref.path is None or ref.span is not None or ref.url is not None:
        return None
    try:
        if not ref.path.is_dir():
            return None
        with os.scandir(ref.path) as entries:
            is_link = {entry.name: entry.is_symlink() for entry in entries if not entry.is_dir()}
    except (OSError, ValueError) as error:
        raise unreadable(ref, error) from error
    names = sorted((name for name in is_link if not is_litter(name)), key=natural_key)
    pictures = [name for name in names if is_picture_ending(ending_of(name))]
    if not pictures:
        held = f" (it holds {names[0]!r})" if names else ""
        raise SampleError(
            f"clip {ref.name} is a folder without pictures{held}",
            kind="corrupt_media",
            fix="name the video file, or a folder of numbered pictures such as frame_0001.jpg",
        )
    if ref.root is not None:
        _check_links(ref, [name for name in pictures if is_link[name]], ref.root)
    return tuple(ImageRef(path=ref.path / name) for name in pictures)


def _check_links(ref: VideoRef, links: list[str], root: Path) -> None:
    """Refuse a frame that lies elsewhere.

    Raises:
        SampleError: there is one.
    """
    if not links or ref.path is None:
        return
    real_root = Path(os.path.realpath(root))
    for name in links:
        if not Path(os.path.realpath(ref.path / name)).is_relative_to(real_root):
            raise SampleError(
                f"frame {name} of clip {ref.name} is a link out of the folder of media",
                kind="outside_root",
                fix="set the source's `path` to a folder above it, or "
                "`data.allow_outside_root: true` if you trust them",
            )
