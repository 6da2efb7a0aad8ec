"""A complete checkpoint small enough for tests: real tokenizer and processor, random weights, tiny
dimensions.

Everything that depends on shapes, names and files is as in a released checkpoint (grouped-query
heads, pixel shuffle, untied head, vocabulary of 49,280); only the widths, the depth and the tiles
are small. It answers nothing sensibly.
"""

from pathlib import Path

import torch

from smolvlm.build.checkpoint import write_checkpoint
from smolvlm.build.configs import LanguageDimensions, VisionDimensions, build_config
from smolvlm.build.processor import ModelType, PictureSettings
from smolvlm.disk.atomic_files import making_folder
from smolvlm.model.stock_classes import STOCK_CLASSES


def tiny_model(
    out_dir: str | Path,
    *,
    model_type: ModelType = "smolvlm",
    seed: int = 0,
    tile_side_px: int = 32,
    longest_edge_px: int = 128,
    hidden_size: int = 64,
) -> Path:
    """Write a random model into `out_dir` and return it; the same arguments give the same bytes.

    A tile is 4 x 4 patches of a quarter of its side and becomes 4 tokens (scale factor 2).

    Args:
        tile_side_px: side of a tile; a multiple of 4.
        longest_edge_px: what a picture's longest edge is scaled to; 1 to 6 tile sides.
        hidden_size: width of the language model (4 heads, 2 for keys and values); the tower is half
            as wide.

    Raises:
        ConfigError: the vocabulary could not be fetched.
        ValueError: sizes that do not fit together.
    """
    vision = VisionDimensions(
        tile_side_px=tile_side_px,
        patch_size_px=tile_side_px // 4,
        hidden_size=hidden_size // 2,
        num_layers=2,
        num_heads=2,
        intermediate_size=hidden_size,
    )
    language = LanguageDimensions(
        hidden_size=hidden_size,
        num_layers=2,
        num_heads=4,
        num_key_value_heads=2,
        intermediate_size=2 * hidden_size,
        initializer_range=0.1,
    )
    config = build_config(vision, language, scale_factor=2, model_type=model_type)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = STOCK_CLASSES[model_type](config)
    folder = Path(out_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with making_folder(folder) as made:
        write_checkpoint(
            made,
            model,
            model_type=model_type,
            pictures=PictureSettings(longest_edge_px=longest_edge_px),
        )
    return folder
