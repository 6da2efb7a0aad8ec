"""From an upright RGB picture to the square uint8 tiles that the vision tower reads.

Resizes are done one after another as the released processor does them, each rounded to uint8: a
fused resize would be faster and give other pixels. Two back ends do the same LANCZOS sums with
coefficients rounded differently: on a photo of 1200 x 900 they differ by 2 levels of 255 at most,
in 0.5 to 1.3 % of the values; where one side is stretched a hundredfold, by up to 15. Each is equal
to the last bit to the released processor built on it, and the default is the one that
`AutoProcessor` takes on the same installation:

- `torch` (from 2.12 on): equal to the torchvision processor. Some eight times as fast as Pillow.
- `pillow`: equal to the Pillow processor, which `AutoProcessor` takes where torch has no LANCZOS
  yet.

Between the resizes pixels lie as height x width x 4, the fourth byte idle: Pillow keeps them so,
which makes handing them over cheap, and torch resizes four interleaved channels as fast as three.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from smolvlm.media.tile_grid import Size, TileSettings, plan_resize

ResizeBackend = Literal["torch", "pillow"]

DEFAULT_BACKEND: ResizeBackend = (
    "torch"
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 12)
    else "pillow"
)
"""torch 2.12 is the first whose `interpolate` knows LANCZOS; torchvision 0.27, the release beside
it, goes by it."""


def make_tiles(
    image: Image.Image, settings: TileSettings, *, backend: ResizeBackend = DEFAULT_BACKEND
) -> UInt8[np.ndarray, "tile 3 side side"]:
    """Cut a picture into tiles, row by row, the global view last, or alone if not split.

    Args:
        image: upright, mode RGB, as `open_rgb` gives it.
        settings: tile side and longest edge in pixels, splitting or not.
        backend: which library resizes; see above.

    Raises:
        ValueError: the picture is not in mode RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"make_tiles takes mode RGB, got {image.mode}")
    plan = plan_resize(*image.size, settings)
    if backend == "torch":
        scaled = _resize_torch(torch.from_numpy(_to_pixels(image)), plan.longest_edge_size)
        cut = _resize_torch(scaled, plan.cut_size)
        cut_pixels, global_pixels = cut.numpy(), _resize_torch(cut, plan.global_size).numpy()
    else:
        scaled = _resize_pillow(image, plan.longest_edge_size)
        cut = _resize_pillow(scaled, plan.cut_size)
        cut_pixels, global_pixels = (
            _to_pixels(cut),
            _to_pixels(_resize_pillow(cut, plan.global_size)),
        )

    rows, columns, side = plan.grid.rows, plan.grid.columns, settings.tile_side_px
    tiles = np.empty((plan.grid.num_tiles, 3, side, side), dtype=np.uint8)
    if rows:
        by_tile = cut_pixels.reshape(rows, side, columns, side, 4)[..., :3].transpose(0, 2, 4, 1, 3)
        tiles[:-1].reshape(rows, columns, 3, side, side)[...] = by_tile
    tiles[-1] = global_pixels[..., :3].transpose(2, 0, 1)
    return tiles


def pixel_values(
    tiles: UInt8[np.ndarray, "tile 3 side side"],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    rescale_factor: float,
) -> Float32[np.ndarray, "tile 3 side side"]:
    """Return what the tower sees, (tiles * rescale_factor - mean) / std, to show and test.

    Training does this on the device. The rescaling is folded into mean and std, and all of it is in
    float32, as in the torchvision processor, to which the result is equal to the last bit.
    """
    scale = np.float32(1.0 / rescale_factor)
    channel_mean = (np.asarray(mean, dtype=np.float32) * scale)[:, None, None]
    channel_std = (np.asarray(std, dtype=np.float32) * scale)[:, None, None]
    return (tiles.astype(np.float32) - channel_mean) / channel_std


def scale_image(
    image: Image.Image, size: Size, *, backend: ResizeBackend = DEFAULT_BACKEND
) -> Image.Image:
    """Return an RGB picture resized with LANCZOS, as every resize of `make_tiles`."""
    if backend == "pillow":
        return _resize_pillow(image, size)
    resized = _resize_torch(torch.from_numpy(_to_pixels(image)), size).numpy()
    return Image.fromarray(np.ascontiguousarray(resized[..., :3]))


def _to_pixels(image: Image.Image) -> UInt8[np.ndarray, "height width 4"]:
    """Copy a picture out of Pillow; torch wants memory that it might write to."""
    width, height = image.size
    return np.frombuffer(bytearray(image.tobytes("raw", "RGBX")), dtype=np.uint8).reshape(
        height, width, 4
    )


def _resize_pillow(image: Image.Image, size: Size) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def _resize_torch(
    pixels: UInt8[Tensor, "height width 4"], size: Size
) -> UInt8[Tensor, "new_height new_width 4"]:
    """Resize with LANCZOS; a picture of the size already is returned as it is."""
    height, width, channels = pixels.shape
    if (width, height) == size:
        return pixels
    # With a batch of 1 torch takes interleaved channels for planar ones and repacks them, at twice
    # the time; the batch axis' stride tells it otherwise
    # (https://github.com/pytorch/pytorch/issues/68430, open in 2.14).
    strides = (pixels.numel(), 1, width * channels, channels)
    batch = pixels.contiguous().as_strided((1, channels, height, width), strides)
    resized = interpolate(
        batch, size=(size[1], size[0]), mode="lanczos", align_corners=False, antialias=True
    )
    return resized[0].permute(1, 2, 0)
