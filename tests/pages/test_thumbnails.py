"""Small pictures survive the way into a page."""

import io
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm.errors import SampleError
from smolvlm.pages.thumbnails import medium_uri, pixels_uri
from smolvlm.records import ImageRef


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(b64decode(uri.split(",", 1)[1])))


def test_small_pixels_come_back_as_they_were() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 32), dtype=np.uint8)
    uri = pixels_uri(pixels, max_side_px=64)
    assert uri.startswith("data:image/png;base64,")
    assert np.array_equal(np.asarray(opened(uri)).transpose(2, 0, 1), pixels)


def test_large_pictures_shrink_to_the_side_and_keep_their_shape() -> None:
    pixels = np.zeros((3, 300, 600), np.uint8)
    uri = pixels_uri(pixels, max_side_px=200)
    assert uri.startswith("data:image/jpeg;base64,")
    assert opened(uri).size == (200, 100)


def test_a_file_becomes_a_uri_and_a_missing_one_an_error(photos: dict[str, Path]) -> None:
    assert opened(medium_uri(ImageRef(path=photos["coffee"]), max_side_px=30)).size == (30, 20)
    with pytest.raises(SampleError, match=r"picture .*gone\.png does not exist"):
        medium_uri(ImageRef(path=Path("gone.png")), max_side_px=30)
