"""`smolvlm.media.layout`: what headers tell is settled when sizes are measured."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smolvlm.config.data import DataConfig
from smolvlm.errors import SampleError
from smolvlm.media.images import MAX_PIXELS
from smolvlm.media.layout import layout_of
from smolvlm.media.medium import open_medium
from smolvlm.records import ImageRef, Media, VideoRef
from tests.media_settings import media_settings


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


GOOD = encoded(Image.new("RGB", (60, 40)))
DEEP = encoded(Image.fromarray(np.ones((4, 4), dtype=np.float32)), "TIFF")


@pytest.mark.parametrize(
    "medium",
    [
        ImageRef(data=DEEP),
        VideoRef(frames=(ImageRef(data=GOOD), ImageRef(data=DEEP))),
    ],
)
def test_what_could_not_be_trained_on_is_refused_by_its_header(medium: Media) -> None:
    with pytest.raises(SampleError, match="32-bit pixels"):
        layout_of(medium, media_settings())


def test_frames_of_a_folder_too(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(GOOD)
    assert layout_of(VideoRef(path=tmp_path), media_settings()).num_tiles == 3
    (tmp_path / "1.png").write_bytes(b"")
    with pytest.raises(SampleError, match=r"1\.png is empty"):
        layout_of(VideoRef(path=tmp_path), media_settings())


@pytest.mark.parametrize(
    "medium", [ImageRef(data=GOOD), VideoRef(frames=(ImageRef(data=GOOD),) * 2)]
)
def test_the_largest_picture_is_the_settings(medium: Media) -> None:
    allowed = media_settings(max_image_pixels=2400)
    layout = layout_of(medium, allowed)
    assert len(open_medium(medium, layout, allowed).tiles()) == layout.num_tiles
    smaller = replace(allowed, max_image_pixels=2399)
    for act in (
        lambda: layout_of(medium, smaller),
        lambda: open_medium(medium, layout, smaller).tiles(),
    ):
        with pytest.raises(SampleError, match="limit of 2399 pixels") as raised:
            act()
        assert "`data.max_image_pixels`" in str(raised.value)


def test_the_default_is_written_down_in_the_run_file_s_section() -> None:
    assert DataConfig.model_fields["max_image_pixels"].default == MAX_PIXELS
