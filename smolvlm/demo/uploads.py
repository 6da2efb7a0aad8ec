"""Files that a page was given: how many, how large, and what they are by their content.

In: paths of files that somebody uploaded. Out: pictures and clips as the media room reads them,
each opened once, so that what is wrong with one is said before any answer. A name decides nothing:
a clip called `cat.png` is a clip.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from smolvlm.errors import SampleError, SmolVLMError
from smolvlm.media.kinds import SIGNATURE_BYTES, foreign_kind, kind_of_bytes
from smolvlm.records import ImageRef, Media, VideoRef

BYTES_PER_MB = 2**20
"""As gradio counts, which refuses larger files by itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UploadLimits:
    """What a page takes."""

    max_files: int = 8
    """With one question."""
    max_file_mb: int = 50
    """Of one file, in units of 2^20 bytes."""

    @property
    def max_file_bytes(self) -> int:
        """The same in bytes."""
        return self.max_file_mb * BYTES_PER_MB

    @property
    def max_kept_bytes(self) -> int:
        """How much is kept of all conversations together, until the page ends."""
        return 5 * self.max_files * self.max_file_bytes


def open_uploads(
    paths: Sequence[Path], limits: UploadLimits, *, check: Callable[[Media], object]
) -> list[Media]:
    """Return uploaded files as pictures and clips, in their order.

    Args:
        paths: the files; errors name them without their folders.
        limits: see there.
        check: raises SampleError where the model cannot be shown one.

    Raises:
        SampleError: too many, one too large, one that is neither a picture nor a clip, or one that
            cannot be read.
    """
    if len(paths) > limits.max_files:
        what = f"{len(paths)} files with one question, at most {limits.max_files} are taken"
        raise SampleError(what, kind="too_large_media", fix="ask about fewer at a time")
    return [_open_upload(path, limits, check) for path in paths]


def _open_upload(path: Path, limits: UploadLimits, check: Callable[[Media], object]) -> Media:
    size = path.stat().st_size
    if size > limits.max_file_bytes:
        what = (
            f"{path.name} has {size / BYTES_PER_MB:.1f} MB, at most {limits.max_file_mb} are taken"
        )
        raise SampleError(what, kind="too_large_media", fix="show a smaller or shorter one")
    medium = _medium_of(path)
    try:
        check(medium)
    except SmolVLMError as error:
        raise without_folder(error, path) from error
    return medium


def _medium_of(path: Path) -> Media:
    """Return a picture or a clip, whichever the first bytes say."""
    with path.open("rb") as file:
        begin = file.read(SIGNATURE_BYTES)
    kind = kind_of_bytes(begin)
    if kind == "image":
        return ImageRef(path=path)
    if kind == "video":
        return VideoRef(path=path)
    if not begin:
        raise SampleError(f"{path.name} is empty", kind="empty_media", fix="choose another file")
    foreign = foreign_kind(begin)
    if foreign is not None:
        raise SampleError(f"{path.name} is {foreign.name}", kind="corrupt_media", fix=foreign.fix)
    what = f"{path.name} is neither a picture nor a clip of a known kind"
    raise SampleError(what, kind="corrupt_media", fix="show a JPEG, PNG, WebP, MP4 or WebM file")


def without_folder(error: SmolVLMError, path: Path) -> SmolVLMError:
    """Return an error that calls a file by its name alone: its folder is nobody's business."""
    what, place = error.what.replace(str(path), path.name), error.where
    if place is not None:
        place = place.replace(str(path), path.name)
    kind = error.kind if isinstance(error, SampleError) else "corrupt_media"
    return SampleError(what, kind=kind, where=place, fix=error.fix)
