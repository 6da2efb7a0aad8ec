"""A DINOv2-layout vision transformer out of a checkpoint folder (transformers' `Dinov2Model`).

In: a folder of model type `dinov2`. Out: a part for the stock SmolVLM vision class: layer scale
folded into the linear before it, class and mask token dropped; the pixels' mean and std stay what
they are and go into the processor. Towers with register tokens or a gated MLP (the giant one) have
no place in the stock class and are refused.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolvlm.build.configs import VisionDimensions
from smolvlm.build.part import VisionPart
from smolvlm.build.siglip_tower import read_pixel_statistics, side_of
from smolvlm.build.tower_tensors import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NO_CLASS_TOKEN,
    convert_layer,
    layer_names,
)
from smolvlm.build.weights_folder import WeightsFolder, open_weights, read_config
from smolvlm.errors import ConfigError, located

MODEL_TYPES = ("dinov2",)
_PATCHES = "embeddings.patch_embeddings.projection"
_POSITIONS = "embeddings.position_embeddings"


def read_dinov2(folder: Path) -> VisionPart:
    """Return the tower of a folder; only headers are read yet.

    Raises:
        ConfigError: tensors are missing, or the tower has what the stock class has no place for.
    """
    weights = open_weights(folder)
    config: Any = read_config(folder)
    if config.use_swiglu_ffn:
        fix = "take the small, base or large one"
        raise ConfigError(
            "this DINOv2 has a gated MLP, SmolVLM's vision class has none",
            where=str(folder),
            fix=fix,
        )
    prefix = weights.prefix_of(f"{_PATCHES}.weight", what="DINOv2 tower")
    patch_px = _one(config.patch_size)
    names = _names(weights, prefix, config.num_hidden_layers)
    weights.check(names.values())
    with located(str(folder)):
        side = side_of(weights.shape(prefix + _POSITIONS)[1] - 1)
    own_px = _one(config.image_size)
    mean, std = read_pixel_statistics(folder, default=(IMAGENET_MEAN, IMAGENET_STD))
    dimensions = VisionDimensions(
        tile_side_px=own_px if own_px // patch_px == side else side * patch_px,
        patch_size_px=patch_px,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        num_heads=config.num_attention_heads,
        intermediate_size=int(config.hidden_size * config.mlp_ratio),
        activation=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
    )
    return VisionPart(
        where=str(folder),
        kind="DINOv2 tower",
        dimensions=dimensions,
        pixel_mean=mean,
        pixel_std=std,
        read=partial(_read, weights, prefix),
        notes=(NO_CLASS_TOKEN,),
    )


def _one(value: int | Sequence[int]) -> int:
    return int(value if isinstance(value, int) else value[0])


def _names(weights: WeightsFolder, prefix: str, num_layers: int) -> dict[str, str]:
    """Return the names of all needed tensors; biases of query, key and value may be missing."""
    stems = [_PATCHES, "layernorm"]
    for index in range(num_layers):
        stems += layer_names(index).values()
    names = [f"{stem}.{suffix}" for stem in stems for suffix in ("weight", "bias")]
    names = [name for name in names if prefix + name in weights.files or not _is_optional(name)]
    names += [
        f"encoder.layer.{index}.layer_scale{half}.lambda1"
        for index in range(num_layers)
        for half in (1, 2)
    ]
    return {name: prefix + name for name in [*names, _POSITIONS]}


def _is_optional(name: str) -> bool:
    return ".attention.attention." in name and name.endswith(".bias")


def _read(weights: WeightsFolder, prefix: str, num_layers: int) -> dict[str, Tensor]:
    source = weights.read(_names(weights, prefix, num_layers))
    width = source["layernorm.weight"].shape[0]
    for index in range(num_layers):
        for part in ("query", "key", "value"):
            source.setdefault(
                f"encoder.layer.{index}.attention.attention.{part}.bias", torch.zeros(width)
            )
    state = {
        "embeddings.patch_embedding.weight": source[f"{_PATCHES}.weight"],
        "embeddings.patch_embedding.bias": source[f"{_PATCHES}.bias"],
        "embeddings.position_embedding.weight": source[_POSITIONS][0, 1:].clone(),
        "post_layernorm.weight": source["layernorm.weight"],
        "post_layernorm.bias": source["layernorm.bias"],
    }
    for index in range(num_layers):
        state.update(convert_layer(source, index))
    return state
