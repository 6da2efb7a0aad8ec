"""Sets a cut-off tower's last layer norm, so that its features come out centred and of unit spread.

The stock tower ends in a layer norm. The source network's own fits its twelfth layer; after fewer
layers some channels carry a large constant and little of the picture. So the norm's weight and bias
are set from the features of a few hundred drawn pictures (one coloured shape each, on a plain
ground): every channel gets mean 0 and spread 1 over them, which is as much as an affine map per
channel can do, and the connector starts well conditioned.
"""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from smolvlm.model.vision import PixelScaling, normalize_pixels

NUM_PICTURES = 256
_SUPERSAMPLING = 4
"""Shapes are drawn this many times larger and averaged down, so that their edges are smooth."""


def drawn_pictures(
    *, side_px: int, seed: int = 0, num_pictures: int = NUM_PICTURES
) -> UInt8[Tensor, "picture 3 side side"]:
    """Return pictures of a rectangle, disc or triangle of any colour on a plain ground."""
    random = np.random.default_rng(seed)
    fine = side_px * _SUPERSAMPLING
    y, x = np.mgrid[0:fine, 0:fine] / fine
    pictures = np.empty((num_pictures, 3, side_px, side_px), dtype=np.uint8)
    for picture in pictures:
        width, height = random.uniform(0.1, 0.5, size=2)
        left, top = random.uniform(0.0, 1.0 - width), random.uniform(0.0, 1.0 - height)
        across, down = (x - left) / width, (y - top) / height
        shapes = (
            (abs(across - 0.5) < 0.5) & (abs(down - 0.5) < 0.5),
            (across - 0.5) ** 2 + (down - 0.5) ** 2 < 0.25,
            (down < 1.0) & (abs(across - 0.5) < down / 2),
        )
        coverage = (
            shapes[random.integers(3)]
            .reshape(side_px, _SUPERSAMPLING, side_px, _SUPERSAMPLING)
            .mean((1, 3))
        )
        ground = (
            random.uniform(0.9, 1.0, size=3) if random.random() < 0.8 else random.uniform(size=3)
        )
        colour = random.uniform(size=3)
        mixed = ground[:, None, None] * (1 - coverage) + colour[:, None, None] * coverage
        picture[:] = np.round(mixed * 255)
    return torch.from_numpy(pictures)


@torch.no_grad()
def standardise_output(
    tower: nn.Module,
    *,
    tile_side_px: int,
    scaling: PixelScaling | None = None,
    num_pictures: int = NUM_PICTURES,
) -> None:
    """Set a tower's `post_layernorm` so that drawn pictures give mean 0, spread 1 a channel."""
    norm = tower.get_submodule("post_layernorm")
    assert isinstance(norm, nn.LayerNorm)
    norm.weight.fill_(1.0)
    norm.bias.fill_(0.0)
    pictures = drawn_pictures(side_px=tile_side_px, num_pictures=num_pictures)
    features = tower_features(tower, pictures, scaling=scaling).flatten(0, 1).double()
    mean, std = features.mean(dim=0), features.std(dim=0)
    norm.weight.copy_(1.0 / std)
    norm.bias.copy_(-mean / std)


@torch.no_grad()
def tower_features(
    tower: nn.Module,
    pictures: UInt8[Tensor, "picture 3 side side"],
    *,
    scaling: PixelScaling | None = None,
) -> Float[Tensor, "picture patch hidden"]:
    """Return the tower's last hidden state for uint8 pictures, a few at a time.

    Args:
        scaling: of the tower's processor; mean and std of a half where not given.
    """

    def pixels(batch: UInt8[Tensor, "picture 3 side side"]) -> Float[Tensor, "picture 3 side side"]:
        return (
            normalize_pixels(batch, scaling, dtype=torch.float32)
            if scaling
            else batch.float() / 127.5 - 1.0
        )

    return torch.cat([tower(pixels(batch)).last_hidden_state for batch in pictures.split(32)])


@torch.no_grad()
def feature_size(
    tower: nn.Module, *, tile_side_px: int, scaling: PixelScaling, num_pictures: int
) -> float:
    """Return the root mean square of a tower's features of drawn pictures."""
    pictures = drawn_pictures(side_px=tile_side_px, num_pictures=num_pictures)
    return tower_features(tower, pictures, scaling=scaling).double().square().mean().sqrt().item()
