"""Writes a model and its processor as one stock checkpoint.

In: a stock model and an empty folder, which mostly appears whole or not at all (`making_folder`,
`new_folder`). Out: `config.json`, `generation_config.json`, `model.safetensors` and the processor's
files in it.
"""

from pathlib import Path

from transformers import GenerationConfig

from smolvlm.build.configs import tile_side_px, tokens_per_tile
from smolvlm.build.processor import ModelType, PictureSettings, write_processor
from smolvlm.build.tokenizer import PromptIds
from smolvlm.build.vocabulary import Vocabulary
from smolvlm.checkpoints.context import name_rope_for_older_readers
from smolvlm.model.stock_classes import StockModel


def write_checkpoint(
    folder: Path,
    model: StockModel,
    *,
    model_type: ModelType,
    pictures: PictureSettings,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Write a checkpoint's files into an empty folder.

    Args:
        pictures: how tiles are made.
        vocabulary: the tokenizer; SmolVLM's where not given.
    """
    ids = vocabulary.ids if vocabulary else PromptIds()
    model.generation_config = GenerationConfig(
        bos_token_id=ids.start, eos_token_id=ids.end, pad_token_id=ids.pad
    )
    model.save_pretrained(folder)
    name_rope_for_older_readers(folder / "config.json")
    write_processor(
        folder,
        model_type=model_type,
        tile_side_px=tile_side_px(model.config),
        tokens_per_tile=tokens_per_tile(model.config),
        pictures=pictures,
        vocabulary=vocabulary,
    )
