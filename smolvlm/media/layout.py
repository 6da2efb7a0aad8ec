"""What of a picture or a clip is shown: from headers, for the lengths of whole data sets.

Nothing that resizes or decodes is imported here: processes that only measure rows stay small and
start fast.
"""

from smolvlm.media.images import header_size
from smolvlm.media.settings import MediaSettings
from smolvlm.media.tile_grid import grid_for
from smolvlm.media.video.frames import choose_frames
from smolvlm.media.video.index import read_index
from smolvlm.records import ImageRef, Layout, Media


def layout_of(medium: Media, settings: MediaSettings) -> Layout:
    """Return what of a picture or a clip is shown, from its headers.

    Raises:
        SampleError: it cannot be read, or is none.
    """
    if isinstance(medium, ImageRef):
        return grid_for(*header_size(medium), settings.pictures)
    index = read_index(medium)
    return choose_frames(index, settings.frames, start_s=medium.start_s, end_s=medium.end_s)
