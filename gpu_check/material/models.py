"""Models with random weights at published widths, or tiny ones, and their folders.

In: a published size. Out: a configuration, a stock model on a device, our model with the same
weights, and a checkpoint folder (with or without weights) from which the product loads and plans.
Nothing is downloaded.
"""

import copy
from pathlib import Path
from typing import Any

import torch
from transformers import SmolVLMForConditionalGeneration

from gpu_check.material.tokenizer import synthetic_vocabulary
from smolvlm.build.checkpoint import write_checkpoint
from smolvlm.build.configs import (
    LanguageDimensions,
    PublishedSize,
    VisionDimensions,
    build_config,
    published_config,
    tile_side_px,
    tokens_per_tile,
)
from smolvlm.build.processor import PictureSettings, write_processor
from smolvlm.checkpoints.load import load_processor, prepare_model
from smolvlm.disk.atomic_files import making_folder
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES

MODEL_TYPE = "smolvlm"
"""A picture is one tile unless a run says otherwise, for every system that reads the folder."""
SIZES: tuple[PublishedSize, ...] = ("256M", "500M", "2.2B")
_TINY_WIDTHS: dict[PublishedSize, tuple[int, int, int]] = {
    "256M": (36, 9, 3),
    "500M": (30, 15, 5),
    "2.2B": (64, 32, 32),
}
"""Hidden size, heads and key-value heads: the published layouts at head sizes of 4 and 2."""


def model_config(size: PublishedSize, *, is_tiny: bool, num_layers: int | None = None) -> Any:
    """Return the configuration of a size; `num_layers` in each tower where given."""
    config = _tiny_config(size) if is_tiny else published_config(size, model_type=MODEL_TYPE)
    if num_layers is not None:
        config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = num_layers
    return config


def _tiny_config(size: PublishedSize) -> Any:
    hidden_size, num_heads, num_key_value_heads = _TINY_WIDTHS[size]
    vision = VisionDimensions(
        tile_side_px=32,
        patch_size_px=8,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        intermediate_size=64,
    )
    language = LanguageDimensions(
        hidden_size=hidden_size,
        num_layers=2,
        num_heads=num_heads,
        num_key_value_heads=num_key_value_heads,
        intermediate_size=2 * hidden_size,
        initializer_range=0.1,
    )
    return build_config(vision, language, scale_factor=2, model_type=MODEL_TYPE)


def random_model(config: Any, device: str, *, seed: int = 0) -> SmolVLMForConditionalGeneration:
    """Return the stock class with random float32 weights, made on the device, attention by SDPA."""
    torch.manual_seed(seed)
    with torch.device(device):
        return SmolVLMForConditionalGeneration._from_config(config, attn_implementation="sdpa")


def packed_twin(stock: SmolVLMForConditionalGeneration, folder: Path) -> Any:
    """Return our model with a copy of a stock model's weights, ready for packs.

    Args:
        folder: of its processor.
    """
    config = copy.deepcopy(stock.config)  # ours names another attention in it
    with stock.device:
        ours = MODEL_CLASSES[MODEL_TYPE](config)
    ours.load_state_dict(stock.state_dict())
    prepare_model(ours, load_processor(str(folder)))
    return ours


def _whole_pictures(config: Any, tiles_a_side: int) -> PictureSettings:
    """Return the settings of pictures that are shown uncut."""
    return PictureSettings(
        longest_edge_px=tiles_a_side * tile_side_px(config), image_splitting=False
    )


def write_plan_folder(folder: Path, config: Any, *, tiles_a_side: int) -> Path:
    """Write what planning and encoding read of a checkpoint, without weights, and return the
    folder.

    Args:
        tiles_a_side: what a picture's longest edge is scaled to, in tiles.
    """
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    write_processor(
        folder,
        model_type=MODEL_TYPE,
        tile_side_px=tile_side_px(config),
        tokens_per_tile=tokens_per_tile(config),
        pictures=_whole_pictures(config, tiles_a_side),
        vocabulary=synthetic_vocabulary(),
    )
    return folder


def write_folder(
    folder: Path, config: Any, device: str, *, tiles_a_side: int, dtype: torch.dtype = torch.float32
) -> Path:
    """Write a whole checkpoint with random weights and return its folder."""
    model: Any = random_model(config, device).to(dtype)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with making_folder(folder) as made:
        write_checkpoint(
            made,
            model,
            model_type=MODEL_TYPE,
            pictures=_whole_pictures(config, tiles_a_side),
            vocabulary=synthetic_vocabulary(),
        )
    return folder
