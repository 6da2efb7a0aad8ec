"""What the tests of exports share."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedConfig

from smolvlm.checkpoints.processor_files import PROCESSOR_FILES


def set_pictures(folder: Path, **settings: Any) -> None:
    """Set picture settings of a checkpoint's processor."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def with_language_model(source: Path, folder: Path, text_config: PreTrainedConfig) -> Path:
    """Write a random model with the tower and the processor of a folder, and return its folder."""
    config = AutoConfig.from_pretrained(source)
    old = config.text_config
    for name in ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(text_config, name, getattr(old, name))
    text_config.tie_word_embeddings = False
    config.text_config = text_config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForImageTextToText.from_config(config)
    model.save_pretrained(folder)
    for name in PROCESSOR_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    return folder
