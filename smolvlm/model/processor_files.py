"""The processor that goes with every checkpoint: the base's own files, as the run used them.

The files are copied, not written anew by transformers (5.23 would write a tokenizer.json without its splitting of
digits). Three values are set: the sizes and the splitting of pictures that the run trained with, and a tokenizer class
that reads tokenizer.json as it stands, so that what a plain `AutoProcessor` does afterwards is what was trained.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from transformers.utils.hub import cached_file

from smolvlm.media.geometry import TileSettings

PROCESSOR_FILES = (
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def save_processor(base: str, folder: Path, *, tiles: TileSettings) -> None:
    """Copy the processor of a checkpoint into a folder.

    Args:
        base: hub id or folder of the checkpoint that training began from.
        folder: where a trained model was saved.
        tiles: how the run cut its pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROCESSOR_FILES:
        found = cached_file(base, name, _raise_exceptions_for_missing_entries=False)
        if found is not None and Path(found).resolve() != (folder / name).resolve():
            shutil.copyfile(found, folder / name)
    _update(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    for name in ("preprocessor_config.json", "processor_config.json"):
        _set_pictures(folder / name, tiles)


def _set_pictures(path: Path, tiles: TileSettings) -> None:
    """Set sizes and splitting where the file holds them: at its top or under `image_processor`."""
    if not path.is_file():
        return
    content = json.loads(path.read_text())
    holder: dict[str, Any] = content.get("image_processor", content)
    if "max_image_size" in holder:
        holder["do_image_splitting"] = tiles.image_splitting
        holder["size"] = {"longest_edge": tiles.longest_edge_px}
        path.write_text(json.dumps(content, indent=2) + "\n")


def _update(path: Path, values: dict[str, Any]) -> None:
    if path.is_file():
        path.write_text(json.dumps(json.loads(path.read_text()) | values, indent=2, ensure_ascii=False) + "\n")
