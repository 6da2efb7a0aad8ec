"""What tells kept tiles apart: all that shapes their pixels, and nothing else."""

from dataclasses import replace

from smolvlm.media.settings import MediaSettings
from smolvlm.media.tile_grid import TileSettings
from smolvlm.media.video.frames import FrameSettings

TILES = TileSettings(tile_side_px=32, longest_edge_px=64, image_splitting=True)
FRAMES = FrameSettings(fps=1.0, max_frames=8, sampling="fps")
SETTINGS = MediaSettings(
    pictures=TILES,
    frame_tiles=TILES,
    frames=FRAMES,
    video_backend="pyav",
    max_image_pixels=1000,
)


def test_keys_differ_where_pixels_may_and_nowhere_else() -> None:
    others = [
        replace(TILES, **{name: value})
        for name, value in (
            ("tile_side_px", 64),
            ("longest_edge_px", 32),
            ("image_splitting", False),
        )
    ]
    pictures = {replace(SETTINGS, pictures=own).picture_key for own in (TILES, *others)}
    frames = {replace(SETTINGS, frame_tiles=own).frame_key for own in (TILES, *others)}
    frames |= {replace(SETTINGS, video_backend=own).frame_key for own in ("torchcodec", "decord")}
    assert (len(pictures), len(frames), len(pictures | frames)) == (4, 6, 10)
    assert replace(SETTINGS, frames=replace(FRAMES, fps=2.0)).frame_key == SETTINGS.frame_key
    assert replace(SETTINGS, video_backend="decord").picture_key == SETTINGS.picture_key
    assert replace(SETTINGS, max_image_pixels=2000).picture_key == SETTINGS.picture_key
    assert replace(SETTINGS, max_image_pixels=2000).frame_key == SETTINGS.frame_key
