"""Media settings for tests, from what a test cares about."""

from smolvlm.media.images import MAX_PIXELS
from smolvlm.media.settings import MediaSettings, VideoBackend
from smolvlm.media.tile_grid import TileSettings
from smolvlm.media.video.frames import FrameSettings


def media_settings(
    *,
    tile_side_px: int = 32,
    longest_edge_px: int = 64,
    image_splitting: bool = True,
    fps: float = 1.0,
    max_frames: int = 64,
    video_backend: VideoBackend = "pyav",
    max_image_pixels: int = MAX_PIXELS,
) -> MediaSettings:
    """Return settings of pictures and of clips whose frames are one tile each."""
    return MediaSettings(
        pictures=TileSettings(
            tile_side_px=tile_side_px,
            longest_edge_px=longest_edge_px,
            image_splitting=image_splitting,
        ),
        frame_tiles=TileSettings(
            tile_side_px=tile_side_px, longest_edge_px=tile_side_px, image_splitting=False
        ),
        frames=FrameSettings(fps=fps, max_frames=max_frames, sampling="fps"),
        video_backend=video_backend,
        max_image_pixels=max_image_pixels,
    )
