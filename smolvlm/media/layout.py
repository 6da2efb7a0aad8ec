"""What of a picture or a clip is shown: from headers, for the lengths of whole data sets.

Nothing that resizes or decodes is imported here: processes that only measure rows stay small and
start fast.
"""

from smolvlm.media.decode_time import decoding
from smolvlm.media.images import header_size
from smolvlm.media.settings import MediaSettings
from smolvlm.media.tile_grid import grid_for
from smolvlm.media.video.frame_folders import list_pictures
from smolvlm.media.video.frames import choose_frames
from smolvlm.media.video.index import read_index
from smolvlm.records import Frames, ImageRef, Layout, Media, VideoRef


def layout_of(medium: Media, settings: MediaSettings) -> Layout:
    """Return what of a picture or a clip is shown, from its headers.

    Raises:
        SampleError: it cannot be read, or is none.
    """
    with decoding(settings.max_decode_s):
        return _layout_of(medium, settings)


def _layout_of(medium: Media, settings: MediaSettings) -> Layout:
    if isinstance(medium, ImageRef):
        size = header_size(medium, max_pixels=settings.max_image_pixels)
        return grid_for(*size, settings.pictures)
    index = read_index(medium)
    frames = choose_frames(index, settings.frames, start_s=medium.start_s, end_s=medium.end_s)
    _check_pictures(medium, frames, max_pixels=settings.max_image_pixels)
    return frames


def _check_pictures(clip: VideoRef, frames: Frames, *, max_pixels: int) -> None:
    """Read the headers of the shown frames of a folder or a list: what they tell is settled now."""
    pictures = list_pictures(clip)
    if pictures is not None:
        for number in frames.numbers:
            header_size(pictures[number], max_pixels=max_pixels)
