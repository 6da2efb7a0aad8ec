"""The checkpoint that all systems load: true dimensions and random weights, or a tiny one for a
quick check.

Time per step does not depend on the weights' values. Whether pictures are cut stands in the
processor's own files, so that every system sees the same.
"""

import json
from pathlib import Path

import torch
from transformers import SmolVLMForConditionalGeneration

from smolvlm.build.checkpoint import write_checkpoint
from smolvlm.build.configs import published_config, tile_side_px
from smolvlm.build.processor import PictureSettings
from smolvlm.build.tiny import tiny_model
from smolvlm.disk.atomic_files import making_folder

_TINY_TILE_PX = 32


def write_model(
    folder: Path,
    *,
    is_tiny: bool,
    layers: tuple[int, int] | None = None,
    image_splitting: bool = False,
) -> None:
    """Write the checkpoint: 256M dimensions with 512 px tiles of 64 tokens, or tiny with 32 px
    tiles of 4 tokens.

    Args:
        layers: of the tower and of the language model, where not as many as published; tiny models
            have two of each.
        image_splitting: whether pictures are scaled to four tiles a side and cut, with an overview
            of each; otherwise each is one tile.
    """
    sides = 4 if image_splitting else 1
    if is_tiny:
        tiny_model(folder, tile_side_px=_TINY_TILE_PX, longest_edge_px=sides * _TINY_TILE_PX)
    else:
        config = published_config("256M", model_type="smolvlm")
        if layers is not None:
            config.vision_config.num_hidden_layers, config.text_config.num_hidden_layers = layers
        torch.manual_seed(0)
        model = SmolVLMForConditionalGeneration(config)
        pictures = PictureSettings(longest_edge_px=sides * tile_side_px(config))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with making_folder(folder) as made:
            write_checkpoint(made, model, model_type="smolvlm", pictures=pictures)
    settings_file = folder / "preprocessor_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings_file.write_text(
        json.dumps(settings | {"do_image_splitting": image_splitting}, indent=2), encoding="utf-8"
    )
