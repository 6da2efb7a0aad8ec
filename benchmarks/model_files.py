"""The checkpoint that all systems load: true dimensions and random weights, or a tiny one for a
quick check.

Time per step does not depend on the weights' values. Pictures are one tile: splitting is off in the
processor's own files, so that every system sees it off.
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


def write_model(folder: Path, *, is_tiny: bool) -> None:
    """Write the checkpoint: 256M dimensions with 512 px tiles of 64 tokens, or tiny with 32 px
    tiles of 4 tokens."""
    if is_tiny:
        tiny_model(folder, tile_side_px=_TINY_TILE_PX, longest_edge_px=_TINY_TILE_PX)
    else:
        config = published_config("256M", model_type="smolvlm")
        torch.manual_seed(0)
        model = SmolVLMForConditionalGeneration(config)
        pictures = PictureSettings(longest_edge_px=tile_side_px(config))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with making_folder(folder) as made:
            write_checkpoint(made, model, model_type="smolvlm", pictures=pictures)
    settings_file = folder / "preprocessor_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8"))
    settings_file.write_text(
        json.dumps(settings | {"do_image_splitting": False}, indent=2), encoding="utf-8"
    )
