"""The files of a processor folder, as the released checkpoints carry them.

In: a tile's side and number of tokens, and the longest edge that a picture is scaled to. Out: eight
small files from which stock `AutoProcessor` builds an `Idefics3Processor` or a `SmolVLMProcessor`.
They are written as JSON in the released files' layout and not by the library's own saving, which
merges several of them and with version 5 rewrites the tokenizer's splitting rules.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from smolvlm.build.tokenizer import tokenizer_json
from smolvlm.build.vocabulary import Vocabulary, smolvlm_vocabulary
from smolvlm.datasets.encoding.jinja_template import RELEASED_TEMPLATE
from smolvlm.media.tile_grid import MAX_TILES_PER_SIDE

ModelType = Literal["idefics3", "smolvlm"]
_CLASS_PREFIX = {"idefics3": "Idefics3", "smolvlm": "SmolVLM"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureSettings:
    """How a processor makes tiles of pictures; by default as the released models do."""

    longest_edge_px: int
    """What a picture's longest edge is scaled to: 1 to 6 times the tile's side."""
    image_splitting: bool = True
    pixel_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    pixel_std: tuple[float, float, float] = (0.5, 0.5, 0.5)


def write_processor(
    out_dir: Path,
    *,
    model_type: ModelType,
    tile_side_px: int,
    tokens_per_tile: int,
    pictures: PictureSettings,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Write tokenizer, chat template and picture settings into `out_dir`, which must exist.

    Args:
        vocabulary: SmolVLM's own where not given.

    Raises:
        ConfigError: the vocabulary could not be fetched.
        ValueError: the longest edge is not 1 to 6 times the tile's side.
    """
    longest_edge_px = pictures.longest_edge_px
    if (
        longest_edge_px % tile_side_px
        or not 1 <= longest_edge_px // tile_side_px <= MAX_TILES_PER_SIDE
    ):
        raise ValueError(
            f"longest_edge_px={longest_edge_px} is not 1 to {MAX_TILES_PER_SIDE} times "
            f"tile_side_px={tile_side_px}"
        )
    processor_class = _CLASS_PREFIX[model_type] + "Processor"
    vocabulary = vocabulary or smolvlm_vocabulary(tokenizer_json())
    (out_dir / "tokenizer.json").write_text(vocabulary.tokenizer_json, encoding="utf-8")
    contents = {
        "tokenizer_config.json": {
            **vocabulary.tokenizer_config,
            "processor_class": processor_class,
            "chat_template": RELEASED_TEMPLATE,
        },
        "special_tokens_map.json": vocabulary.special_tokens_map,
        "chat_template.json": {"chat_template": RELEASED_TEMPLATE},
        "processor_config.json": {
            "image_seq_len": tokens_per_tile,
            "processor_class": processor_class,
        },
        "preprocessor_config.json": _picture_file(model_type, pictures, tile_side_px=tile_side_px),
    }
    for name, content in contents.items():
        (out_dir / name).write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def _picture_file(
    model_type: ModelType, pictures: PictureSettings, *, tile_side_px: int
) -> dict[str, object]:
    settings: dict[str, object] = {
        "do_convert_rgb": True,
        "do_image_splitting": pictures.image_splitting,
        "do_normalize": True,
        "do_pad": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": list(pictures.pixel_mean),
        "image_processor_type": _CLASS_PREFIX[model_type] + "ImageProcessor",
        "image_std": list(pictures.pixel_std),
        "max_image_size": {"longest_edge": tile_side_px},
        "processor_class": _CLASS_PREFIX[model_type] + "Processor",
        "resample": 1,
        "rescale_factor": 1 / 255,
        "size": {"longest_edge": pictures.longest_edge_px},
    }
    if model_type == "smolvlm":
        settings["video_sampling"] = {
            "fps": 1,
            "max_frames": 64,
            "video_size": {"longest_edge": tile_side_px},
        }
    return settings
