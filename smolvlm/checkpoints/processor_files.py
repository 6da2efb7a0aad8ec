"""The processor that goes with every checkpoint: the base's own files, as the run used them.

The files are copied, not written anew by transformers (5.23 would write a tokenizer.json without
its splitting of digits). What is set: the sizes and the splitting of pictures and the choice of
frames that the run trained with, and a tokenizer class that reads tokenizer.json as it stands, so
that what a plain `AutoProcessor` does afterwards is what was trained. New tokens stand in the files
that list ids (`tokenizer_files`).
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from transformers.utils.hub import cached_file

from smolvlm.checkpoints.foreign_json import read_object
from smolvlm.checkpoints.new_tokens import wanted_tokens
from smolvlm.checkpoints.tokenizer_files import add_to_files
from smolvlm.config.new_tokens import NewToken
from smolvlm.datasets.encoding.jinja_template import RELEASED_TEMPLATE
from smolvlm.datasets.encoding.prompts import SPLITTING_KEY
from smolvlm.errors import located
from smolvlm.media.settings import MediaSettings
from smolvlm.protocols import JsonObject

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


def save_processor(
    base: str, folder: Path, *, media: MediaSettings, new_tokens: Sequence[NewToken] = ()
) -> None:
    """Copy the processor of a checkpoint into a folder.

    Args:
        base: hub id or folder of the checkpoint that training began from.
        folder: where a trained model was saved.
        media: how the run cut its pictures and showed its clips.
        new_tokens: that the run added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in PROCESSOR_FILES:
        source = cached_file(base, name, _raise_exceptions_for_missing_entries=False)
        if source is not None and Path(source).resolve() != (folder / name).resolve():
            shutil.copyfile(source, folder / name)
    if new_tokens:
        with located(base):
            add_to_files(folder, wanted_tokens(new_tokens))
    _update(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            content = read_object(folder / name)
            _set_pictures(content.get("image_processor", content), media)
            if "video_processor" in content:
                _set_clips(content["video_processor"], media)
            (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    _write_video_file(folder, media)
    _write_template(folder)


def _set_pictures(holder: JsonObject, media: MediaSettings) -> None:
    if "max_image_size" in holder:
        splitting = media.pictures.image_splitting
        holder["do_image_splitting"] = splitting is True
        holder.pop(SPLITTING_KEY, None)
        if splitting == "overview":  # which transformers keeps, and has no setting for
            holder[SPLITTING_KEY] = splitting
        holder["size"] = {"longest_edge": media.pictures.longest_edge_px}


def _set_clips(holder: JsonObject, media: MediaSettings) -> None:
    edge = {"longest_edge": media.frame_tiles.longest_edge_px}
    frames = media.frames
    holder["size"] = edge
    holder["video_sampling"] = {
        "fps": frames.fps,
        "max_frames": frames.max_frames,
        "video_size": edge,
    }


def _write_video_file(folder: Path, media: MediaSettings) -> None:
    """Give clips a separate file where one file described both.

    Read from the shared file, their size would be the pictures'.
    """
    path, shared = folder / "video_preprocessor_config.json", folder / "preprocessor_config.json"
    source = path if path.is_file() else shared
    content = read_object(source) if source.is_file() else {}
    if "video_sampling" not in content:
        return
    content.pop("image_processor_type", None)
    content["video_processor_type"] = "SmolVLMVideoProcessor"
    _set_clips(content, media)
    path.write_text(json.dumps(content, indent=2) + "\n")


def _write_template(folder: Path) -> None:
    """Give a checkpoint without a chat template the one that it was trained with."""
    names = ("tokenizer_config.json", "processor_config.json", "chat_template.json")
    files = [folder / name for name in names if (folder / name).is_file()]
    has_template = any(read_object(file).get("chat_template") for file in files)
    if not has_template and not (folder / "chat_template.jinja").is_file():
        (folder / "chat_template.jinja").write_text(RELEASED_TEMPLATE)


def _update(path: Path, values: JsonObject) -> None:
    if path.is_file():
        path.write_text(json.dumps(read_object(path) | values, indent=2, ensure_ascii=False) + "\n")
