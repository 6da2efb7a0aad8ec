"""The tiles of `smolvlm.media.tiles`: order, layout and both back ends."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smolvlm.media.tile_grid import TileSettings, plan_resize
from smolvlm.media.tiles import DEFAULT_BACKEND, make_tiles, pixel_values

SMALL = TileSettings(tile_side_px=32, longest_edge_px=128, image_splitting=True)
UNSPLIT = TileSettings(tile_side_px=32, longest_edge_px=128, image_splitting=False)
BACKENDS = ["pillow"] + (["torch"] if DEFAULT_BACKEND == "torch" else [])


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_picture_of_whole_tiles_is_cut_unchanged_row_by_row_with_the_global_view_last(backend):
    image = noise(128, 64)
    tiles = make_tiles(image, SMALL, backend=backend)
    pixels = np.asarray(image).transpose(2, 0, 1)
    assert tiles.shape == (9, 3, 32, 32)
    assert tiles.dtype == np.uint8
    assert tiles.flags.c_contiguous
    for row in range(2):
        for column in range(4):
            expected = pixels[:, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            assert np.array_equal(tiles[4 * row + column], expected)
    assert not np.array_equal(tiles[8], tiles[7])


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_splitting_there_is_one_tile(backend):
    assert make_tiles(noise(70, 50), UNSPLIT, backend=backend).shape == (1, 3, 32, 32)


def test_the_pillow_back_end_is_three_plain_resizes():
    image = noise(50, 33)
    lanczos = Image.Resampling.LANCZOS
    cut = image.resize((128, 84), lanczos).resize((128, 96), lanczos)
    tiles = make_tiles(image, SMALL, backend="pillow")
    assert np.array_equal(tiles[-1], np.asarray(cut.resize((32, 32), lanczos)).transpose(2, 0, 1))
    assert np.array_equal(tiles[0], np.asarray(cut)[:32, :32].transpose(2, 0, 1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tile_settings", [SMALL, UNSPLIT])
@settings(max_examples=25, deadline=None)
@given(width=st.integers(1, 300), height=st.integers(1, 300))
def test_the_number_of_tiles_is_the_planned_one_and_a_flat_colour_stays_flat(
    backend, tile_settings, width, height
):
    tiles = make_tiles(
        Image.new("RGB", (width, height), (10, 200, 77)), tile_settings, backend=backend
    )
    assert len(tiles) == plan_resize(width, height, tile_settings).grid.num_tiles
    assert (tiles == np.array([10, 200, 77], dtype=np.uint8)[:, None, None]).all()


def test_the_back_ends_differ_by_two_levels_at_most_on_a_smooth_picture():
    ramp = np.add.outer(np.arange(90), np.arange(120))[..., None] + np.array([0, 20, 40])
    image = Image.fromarray(ramp.astype(np.uint8))
    levels = [make_tiles(image, SMALL, backend=backend).astype(int) for backend in BACKENDS]
    assert all(np.abs(other - levels[0]).max() <= 2 for other in levels)


def test_a_mode_other_than_rgb_breaks_the_contract():
    with pytest.raises(ValueError, match="make_tiles takes mode RGB, got L"):
        make_tiles(Image.new("L", (8, 8)), SMALL)


def test_pixel_values_run_from_minus_one_to_one():
    tiles = np.stack([np.full((3, 2, 2), level, dtype=np.uint8) for level in (0, 255)])
    values = pixel_values(tiles, mean=[0.5] * 3, std=[0.5] * 3, rescale_factor=1 / 255)
    assert values.dtype == np.float32
    assert values.min() == -1.0
    assert values.max() == 1.0


def test_pixel_values_treat_each_channel_by_its_own_mean_and_std():
    tiles = np.full((1, 3, 1, 1), 51, dtype=np.uint8)
    values = pixel_values(tiles, mean=[0.1, 0.2, 0.3], std=[0.1, 0.5, 0.2], rescale_factor=1 / 255)
    assert values.ravel() == pytest.approx([1.0, 0.0, -0.5], abs=1e-6)
