"""Tiles to features: normalisation, vision tower, connector.

In: uint8 tiles. Out: the feature vectors that stand in the prompt. Tiles are always full squares,
so no pixel mask is needed, and the patch embedding is a matrix product (2.4 times the convolution's
speed on CPU). This is the one file that reaches into the stock vision class:
tests/model/test_vision.py holds its output against the stock forward.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn.functional import linear

from smolvlm.errors import ConfigError
from smolvlm.model.packed_tower import PackedTower
from smolvlm.protocols import VisionLanguageConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelScaling:
    """Value seen by the tower = (pixel * rescale_factor - mean) / std, per channel."""

    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def normalize_pixels(
    tiles: UInt8[Tensor, "tile 3 side side"], scaling: PixelScaling, *, dtype: torch.dtype
) -> Float[Tensor, "tile 3 side side"]:
    """Return what the processor calls `pixel_values`; computed in float32, then cast."""
    mean, std = (channel_values(values).to(tiles.device) for values in (scaling.mean, scaling.std))
    return scale_pixels(tiles, scaling.rescale_factor, mean=mean, std=std, dtype=dtype)


def channel_values(values: tuple[float, float, float]) -> Float[Tensor, "3 1 1"]:
    """Return a value for each channel of a tile."""
    return torch.tensor(values).view(3, 1, 1)


def scale_pixels(
    tiles: UInt8[Tensor, "tile 3 side side"],
    rescale_factor: float,
    *,
    mean: Float[Tensor, "3 1 1"],
    std: Float[Tensor, "3 1 1"],
    dtype: torch.dtype,
) -> Float[Tensor, "tile 3 side side"]:
    """Return `normalize_pixels` with its constants on the tiles' device."""
    return ((tiles.float() * rescale_factor - mean) / std).to(dtype)


def run_tower(
    tower: Any,
    pixel_values: Float[Tensor, "tile 3 side side"],
    positions: Int[Tensor, "1 patch"] | None = None,
    packed: PackedTower | None = None,
) -> Float[Tensor, "tile patch width"]:
    """Return the tower's features of full square tiles.

    They equal `tower(pixel_values).last_hidden_state`.

    Args:
        tower: the stock vision model.
        pixel_values: as the processor gives them.
        positions: `tile_positions`, where the caller keeps them on the device.
        packed: computes the layers instead of the tower's encoder; gives no gradient.
    """
    embeddings = tower.embeddings
    if positions is None:
        positions = tile_positions(embeddings.num_patches_per_side).to(pixel_values.device)
    patches = _patches(pixel_values, patch_side=embeddings.patch_size)
    convolution = embeddings.patch_embedding
    hidden = linear(patches, convolution.weight.flatten(1), convolution.bias)
    hidden = hidden + embeddings.position_embedding(positions)
    if packed is not None:
        return tower.post_layernorm(packed.encode(hidden))
    return tower.post_layernorm(
        tower.encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state
    )


def _patches(
    pixel_values: Float[Tensor, "tile 3 side side"], *, patch_side: int
) -> Float[Tensor, "tile patch pixel"]:
    """Cut tiles into patches, row by row.

    Pixels beyond the last whole patch are left out, as by the convolution's stride: 384 px are 27
    patches of 14 px and 6 px over.
    """
    tiles, channels, side, _ = pixel_values.shape
    count = side // patch_side
    whole = pixel_values[:, :, : count * patch_side, : count * patch_side]
    patches = whole.reshape(tiles, channels, count, patch_side, count, patch_side)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(tiles, count * count, -1)


def tile_positions(patches_per_side: int) -> Int[Tensor, "1 patch"]:
    """Return the stock class's positions of a full tile's patches: fractional coordinates sorted
    into buckets.

    For some numbers of patches a side (25 and 31, say; not the released 27 and 32) the buckets'
    float32 edges put some patches one bucket off. The stock class does so, in training as in use,
    and it is repeated here.
    """
    edges = torch.arange(1 / patches_per_side, 1.0, 1 / patches_per_side)
    step = 1.0 / torch.tensor(patches_per_side)
    coordinates = torch.arange(patches_per_side, dtype=torch.float32) * step
    bucket = torch.bucketize(coordinates.clamp(max=1.0 - 1e-6), edges, right=True)
    return (bucket[:, None] * patches_per_side + bucket[None, :]).reshape(1, -1)


def misplaced_rows(patches_per_side: int) -> tuple[int, ...]:
    """Return the rows (and columns) that the stock class gives the position of the one before.

    Empty for the sides of all published towers (27, 32, 64); row 12 of 19, half of the rows of 25.
    """
    columns = tile_positions(patches_per_side)[0, :patches_per_side].tolist()
    return tuple(column for column, position in enumerate(columns) if column != position)


def check_tile_side(config: VisionLanguageConfig, *, tile_side_px: int) -> None:
    """Raise ConfigError where a processor's tiles do not fit the tower."""
    side = config.vision_config.image_size
    if tile_side_px != side:
        raise ConfigError(
            f"the processor cuts tiles of {tile_side_px} px, the vision tower takes {side} px",
            fix="use the processor that belongs to the checkpoint (max_image_size.longest_edge = "
            "image_size)",
        )


def tokens_per_tile(config: VisionLanguageConfig) -> int:
    """Return how many image tokens a tile costs: (image_size / patch_size)^2 / scale_factor^2."""
    vision = config.vision_config
    return (vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2


def tower_modules(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return (vision tower, connector) of a model of the family."""
    return model.get_submodule("model.vision_model"), model.get_submodule("model.connector")
