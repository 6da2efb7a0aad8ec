"""How a run's pictures and clips become tiles: one record for everything that opens media."""

from dataclasses import dataclass, field
from typing import Literal

from smolvlm.media.decode_time import MAX_DECODE_S
from smolvlm.media.tile_grid import TileSettings
from smolvlm.media.video.frames import FrameSettings

VideoBackend = Literal["pyav", "torchcodec", "decord"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaSettings:
    """What decides the tiles of a picture or a clip."""

    pictures: TileSettings
    frame_tiles: TileSettings
    """Of a clip's frames: never cut, one tile each."""
    frames: FrameSettings
    """Which frames of a clip are shown."""
    video_backend: VideoBackend
    """Which library decodes clips."""
    max_image_pixels: int
    """Largest picture that is opened, a frame given as a picture included."""
    max_decode_s: float = field(default=MAX_DECODE_S, repr=False)
    """CPU time that a row's media may take; no part of what sizes are kept by."""

    @property
    def picture_key(self) -> bytes:
        """Bytes that are equal where a picture's tiles are."""
        return _tiles_key(self.pictures)

    @property
    def frame_key(self) -> bytes:
        """Bytes that are equal where a given frame's tile is."""
        return b"frame/" + _tiles_key(self.frame_tiles) + self.video_backend.encode()


def _tiles_key(settings: TileSettings) -> bytes:
    return f"{settings.tile_side_px}/{settings.longest_edge_px}/{settings.image_splitting}".encode()
