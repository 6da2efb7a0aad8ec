"""Tiles, grids and colours equal those of the released processors, to the last bit.

Both back ends are compared with the stock processor built on the same library: `torch` with the
torchvision processor, which `AutoProcessor` takes by default, and `pillow` with the Pillow
processor.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor
from transformers.image_utils import load_image
from transformers.models.idefics3.image_processing_idefics3 import Idefics3ImageProcessor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.image_processing_smolvlm import SmolVLMImageProcessor

from smolvlm.media.images import header_size, open_rgb
from smolvlm.media.tile_grid import TileSettings, grid_for
from smolvlm.media.tiles import DEFAULT_BACKEND, make_tiles, pixel_values
from smolvlm.records import Grid, ImageRef

PHOTOS = Path(skimage.__file__).parent / "data"
MEAN, STD, RESCALE_FACTOR = [0.5] * 3, [0.5] * 3, 0.00392156862745098
TORCHVISION = [Idefics3ImageProcessor, SmolVLMImageProcessor]
PILLOW = [Idefics3ImageProcessorPil, SmolVLMImageProcessorPil]
LEVEL = 1 / 127.5
"""One level of 255 after normalising."""
ODD_SIZES = [
    (1, 1),
    (2, 2),
    (3, 17),
    (17, 3),
    (1, 2000),
    (2000, 1),
    (4000, 13),
    (13, 4000),
    (33, 1023),
    (257, 100),
]


def tile_settings(side: int = 32, edge: int = 128, is_split: bool = True) -> TileSettings:
    return TileSettings(tile_side_px=side, longest_edge_px=edge, image_splitting=is_split)


def processor(kind: type, chosen: TileSettings):
    return kind(
        size={"longest_edge": chosen.longest_edge_px},
        max_image_size={"longest_edge": chosen.tile_side_px},
        do_image_splitting=chosen.image_splitting,
        resample=Image.Resampling.LANCZOS,
        image_mean=MEAN,
        image_std=STD,
        rescale_factor=RESCALE_FACTOR,
        return_row_col_info=True,
    )


def stock(kind: type, image: Image.Image | str, chosen: TileSettings) -> tuple[np.ndarray, Grid]:
    made = processor(kind, chosen)(image, return_tensors="np")
    grid = Grid(rows=int(np.ravel(made["rows"])[0]), columns=int(np.ravel(made["cols"])[0]))
    return made["pixel_values"][0], grid


def ours(image: Image.Image, chosen: TileSettings, backend: str = DEFAULT_BACKEND) -> np.ndarray:
    return pixel_values(
        make_tiles(image, chosen, backend=backend),
        mean=MEAN,
        std=STD,
        rescale_factor=RESCALE_FACTOR,
    )


def photo(name: str = "coffee.png") -> Image.Image:
    return open_rgb(ImageRef(path=PHOTOS / name))


def assert_equal(
    image: Image.Image, chosen: TileSettings, kinds: Sequence[type] = (*TORCHVISION, *PILLOW)
) -> None:
    grid = grid_for(*image.size, chosen)
    for kind in kinds:
        values, stock_grid = stock(kind, image, chosen)
        assert grid == stock_grid
        if kind in PILLOW:
            # It normalises in two float steps: its pixels are equal, its floats round differently
            # in the last place.
            np.testing.assert_allclose(ours(image, chosen, "pillow"), values, rtol=0, atol=1e-7)
        elif DEFAULT_BACKEND == "torch":  # older releases have BICUBIC in its place
            assert np.array_equal(ours(image, chosen, "torch"), values)


@pytest.mark.parametrize("is_split", [True, False])
@pytest.mark.parametrize(
    "size", [*ODD_SIZES, (120, 90), (90, 120), (128, 96), (128, 128), (32, 32)]
)
def test_tiles_equal_for_every_shape(size, is_split):
    image = photo().resize(size, Image.Resampling.NEAREST)
    assert_equal(image, tile_settings(is_split=is_split))


@pytest.mark.parametrize(("side", "edge"), [(33, 99), (33, 165), (32, 192), (32, 32), (14, 70)])
def test_tiles_equal_for_other_tile_sides(side, edge):
    for size in [(7, 7), (100, 37), (37, 100), (101, 99)]:
        assert_equal(photo().resize(size, Image.Resampling.NEAREST), tile_settings(side, edge))


@pytest.mark.parametrize("is_split", [True, False])
@pytest.mark.parametrize("side_and_edge", [(512, 2048), (384, 1536)])
def test_tiles_equal_for_a_photo_at_the_released_settings(side_and_edge, is_split):
    assert_equal(
        photo("rocket.jpg"),
        tile_settings(*side_and_edge, is_split),
        [Idefics3ImageProcessor, Idefics3ImageProcessorPil],
    )


def test_tiles_equal_for_a_photo_of_4000_x_3000():
    image = photo().resize((4000, 3000), Image.Resampling.BILINEAR)
    assert_equal(image, tile_settings(384, 1536), [Idefics3ImageProcessor])


@settings(max_examples=30, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    is_split=st.booleans(),
    seed=st.integers(0, 9),
)
def test_tiles_of_noise_equal_for_any_size(width, height, is_split, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image, chosen = Image.fromarray(pixels), tile_settings(is_split=is_split)
    assert_equal(image, chosen, [Idefics3ImageProcessor, Idefics3ImageProcessorPil])


def test_the_two_stock_processors_differ_by_two_levels_at_most_on_a_photo():
    """States what a user sees who compares with the other back end: not a bound, but the size of
    it."""
    chosen = tile_settings(512, 2048)
    image = photo("rocket.jpg")
    difference = np.abs(ours(image, chosen) - stock(Idefics3ImageProcessorPil, image, chosen)[0])
    assert difference.max() <= 2 * LEVEL + 1e-6
    assert (difference > LEVEL / 2).mean() < 0.01


def test_the_default_back_end_is_the_one_of_the_auto_class(tmp_path):
    processor(Idefics3ImageProcessor, tile_settings()).save_pretrained(tmp_path)
    expected = {"torch": Idefics3ImageProcessor, "pillow": Idefics3ImageProcessorPil}[
        DEFAULT_BACKEND
    ]
    assert type(AutoImageProcessor.from_pretrained(tmp_path)) is expected


@settings(max_examples=120, deadline=None)
@given(
    width=st.integers(1, 10_000),
    height=st.integers(1, 10_000),
    side=st.sampled_from([32, 364, 384, 512]),
    tiles=st.integers(1, 6),
    is_split=st.booleans(),
)
@example(width=4000, height=13, side=512, tiles=4, is_split=True)
@example(width=1, height=10_000, side=512, tiles=4, is_split=True)
def test_grids_equal_the_processors_own_forecast_for_even_tiles(
    width, height, side, tiles, is_split
):
    chosen = tile_settings(side, side * tiles, is_split)
    made = processor(Idefics3ImageProcessor, chosen)
    num_tiles, rows, columns = made.get_number_of_image_patches(height, width)
    grid = grid_for(width, height, chosen)
    assert grid == Grid(rows=rows, columns=columns)
    assert num_tiles == (
        grid.num_tiles if rows else 0
    )  # the forecast counts no tile where nothing is cut


def test_for_odd_tiles_the_pixels_are_followed_and_not_the_forecast():
    """99 x 100 after the first resize has 4 rows and 4 columns in pixels; the processor's forecast
    says 4 and 3."""
    image, chosen = photo().resize((7, 7)), tile_settings(33, 99)
    assert processor(Idefics3ImageProcessor, chosen).get_number_of_image_patches(7, 7) == (13, 4, 3)
    assert grid_for(7, 7, chosen) == Grid(rows=4, columns=4)
    assert_equal(image, chosen)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_colours_equal_those_of_an_opened_picture_given_to_the_processor(mode, tmp_path):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image = photo().resize((100, 80))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.linear_gradient("L").resize(image.size))
    image.convert(mode).save(path)
    chosen = tile_settings()
    with Image.open(path) as opened:
        values, _ = stock(Idefics3ImageProcessorPil, opened, chosen)
    found = ours(open_rgb(ImageRef(path=path)), chosen, "pillow")
    np.testing.assert_allclose(found, values, rtol=0, atol=1e-7)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_equals_that_of_load_image(extension, orientation, tmp_path):
    path = tmp_path / f"a.{extension}"
    tags = Image.Exif()
    tags[274] = orientation
    photo().resize((60, 40)).save(path, exif=tags)
    expected = load_image(str(path))
    ref = ImageRef(path=path)
    assert header_size(ref) == expected.size
    assert np.array_equal(np.asarray(open_rgb(ref)), np.asarray(expected))


@pytest.mark.parametrize(
    "name", sorted(p.name for p in PHOTOS.iterdir() if p.suffix in (".png", ".jpg", ".gif"))
)
def test_real_pictures_open_as_with_pillow(name):
    """Where a picture has transparency the two part: `load_image` drops it, the processor and we
    lay it over white."""
    with Image.open(PHOTOS / name) as opened:
        if "A" in opened.getbands() or "transparency" in opened.info:
            opened = opened.convert("RGBA")
            opened = Image.alpha_composite(Image.new("RGBA", opened.size, "white"), opened)
        expected = np.asarray(opened.convert("RGB"))
    assert np.array_equal(np.asarray(photo(name)), expected)
    assert header_size(ImageRef(path=PHOTOS / name)) == expected.shape[1::-1]
