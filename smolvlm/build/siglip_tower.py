"""SigLIP's vision tower out of a checkpoint folder: SigLIP, SigLIP 2 at fixed resolution,
PaliGemma, SmolVLM itself.

In: a folder of transformers' layout; of a full checkpoint only the tower's tensors are read. Out: a
part whose tensors go into the stock SmolVLM vision class as they are, since that class is SigLIP's
without its pooling head. The NaFlex variant of SigLIP 2 (model type `siglip2`) is refused: its
patches are a sequence of any shape, not a square.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from smolvlm.build.configs import VisionDimensions
from smolvlm.build.part import HALF, VisionPart
from smolvlm.build.weights_folder import WeightsFolder, open_weights, read_config
from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.errors import ConfigError, located
from smolvlm.protocols import VisionConfig

MODEL_TYPES = ("siglip", "siglip_vision_model", "paligemma", "idefics3", "smolvlm")
_PATCHES = "embeddings.patch_embedding.weight"
_POSITIONS = "embeddings.position_embedding.weight"
_LAYER = (
    "layer_norm1",
    "layer_norm2",
    "mlp.fc1",
    "mlp.fc2",
    "self_attn.k_proj",
    "self_attn.out_proj",
    "self_attn.q_proj",
    "self_attn.v_proj",
)


def read_siglip(folder: Path) -> VisionPart:
    """Return the tower of a folder whose model type is in `MODEL_TYPES`; read headers alone.

    Raises:
        ConfigError: there is no such tower in it, tensors are missing, or their shapes are not
            those of config.json.
    """
    weights = open_weights(folder)
    config = read_config(folder)
    vision: Any = getattr(config, "vision_config", config)
    prefix = weights.prefix_of(_PATCHES, what="SigLIP vision tower")
    dimensions = VisionDimensions(
        tile_side_px=_own_side(weights, prefix, vision, folder),
        patch_size_px=vision.patch_size,
        hidden_size=vision.hidden_size,
        num_layers=vision.num_hidden_layers,
        num_heads=vision.num_attention_heads,
        intermediate_size=vision.intermediate_size,
        activation=vision.hidden_act,
        layer_norm_eps=vision.layer_norm_eps,
    )
    weights.check(_names(prefix, dimensions.num_layers).values())
    _check_shapes(weights, prefix, dimensions, folder)
    mean, std = read_pixel_statistics(folder, default=(HALF, HALF))
    return VisionPart(
        where=str(folder),
        kind=f"SigLIP tower of a {config.model_type} checkpoint",
        dimensions=dimensions,
        pixel_mean=mean,
        pixel_std=std,
        read=partial(_read, weights, prefix),
    )


def read_pixel_statistics(
    folder: Path, *, default: tuple[tuple[float, float, float], tuple[float, float, float]]
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return (mean, std) of a folder's preprocessor_config.json, or the tower's usual ones."""
    path = folder / "preprocessor_config.json"
    content = read_object(path) if path.is_file() else {}
    statistics = []
    for key, usual in zip(("image_mean", "image_std"), default, strict=True):
        values = content.get(key, usual)
        if len(values) != 3 or not all(isinstance(value, int | float) for value in values):
            fix = "write three numbers there, one a colour"
            raise ConfigError(f"{key}={values} is not three numbers", where=str(path), fix=fix)
        red, green, blue = values
        statistics.append((float(red), float(green), float(blue)))
    mean, std = statistics
    return mean, std


def side_of(positions: int) -> int:
    """Return the side of a square of positions.

    Raises:
        ConfigError: they are not a square.
    """
    side = math.isqrt(positions)
    if side * side != positions:
        fix = "use a tower that was trained on square pictures"
        raise ConfigError(f"{positions} position embeddings are not a square of patches", fix=fix)
    return side


def _own_side(weights: WeightsFolder, prefix: str, vision: VisionConfig, folder: Path) -> int:
    """Return the tile side: patches from the table of positions, odd pixels from config.json."""
    weights.check([prefix + _POSITIONS])
    with located(str(folder)):
        side = side_of(weights.shape(prefix + _POSITIONS)[0])
    return (
        vision.image_size
        if vision.image_size // vision.patch_size == side
        else side * vision.patch_size
    )


def _check_shapes(
    weights: WeightsFolder, prefix: str, dimensions: VisionDimensions, folder: Path
) -> None:
    expected = {
        _PATCHES: (dimensions.hidden_size, 3, dimensions.patch_size_px, dimensions.patch_size_px),
        "encoder.layers.0.mlp.fc1.weight": (dimensions.intermediate_size, dimensions.hidden_size),
    }
    for name, shape in expected.items():
        if (stored_shape := weights.shape(prefix + name)) != shape:
            raise ConfigError(
                f"{prefix + name} is {' x '.join(map(str, stored_shape))}, config.json means "
                f"{' x '.join(map(str, shape))}",
                where=str(folder),
                fix="use the config.json that belongs to the weights",
            )


def _names(prefix: str, num_layers: int) -> dict[str, str]:
    stems = [_PATCHES.removesuffix(".weight"), "post_layernorm"]
    stems += [f"encoder.layers.{index}.{stem}" for index in range(num_layers) for stem in _LAYER]
    names = [f"{stem}.{suffix}" for stem in stems for suffix in ("weight", "bias")]
    return {name: prefix + name for name in [*names, _POSITIONS]}


def _read(weights: WeightsFolder, prefix: str, num_layers: int) -> dict[str, Tensor]:
    return weights.read(_names(prefix, num_layers))
