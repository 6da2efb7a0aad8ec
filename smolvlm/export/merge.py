"""A checkpoint as a folder of its own that other programs load: plain transformers, or peft for an
adapter.

In: a checkpoint of a run, or what a run ended with. Out: a folder with weights and processor,
without optimizer and state. An adapter is copied as it is, or merged: its base is loaded anew in
float32 (whatever it was trained in, few bits too, so that nothing is rounded twice), the adapter is
added to the weights, and a stock model is saved.
"""

import shutil
from pathlib import Path

import torch

from smolvlm.checkpoints.context import name_rope_for_older_readers
from smolvlm.checkpoints.load import (
    check_checkpoint_weights,
    load_checkpoint,
    read_model_config,
)
from smolvlm.checkpoints.new_folder import check_new_folder, new_folder
from smolvlm.checkpoints.peft_layers import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    is_adapter_folder,
    merge_adapter,
)
from smolvlm.checkpoints.processor_files import PROCESSOR_FILES
from smolvlm.errors import ConfigError
from smolvlm.export.exported import check_is_checkpoint

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
)
SHARDS = "model-*.safetensors"


def export_for_transformers(checkpoint: Path, out: Path, *, merge: bool) -> list[Path]:
    """Write a checkpoint into a folder of its own; return the files written.

    Args:
        checkpoint: `output_dir` of a run, one of its `checkpoint-N`, or any folder that holds a
            model or an adapter.
        out: made; must be empty where it exists.
        merge: whether an adapter is added to its base's weights.

    Raises:
        ConfigError: there is no checkpoint, nothing to merge, or something in the way.
    """
    is_adapter = is_adapter_folder(checkpoint)
    _check(checkpoint, out, is_adapter=is_adapter, merge=merge)
    with new_folder(out) as folder:
        if merge:
            write_merged(checkpoint, folder)
            names: tuple[str, ...] = PROCESSOR_FILES
        else:
            names = (
                *PROCESSOR_FILES,
                *((ADAPTER_CONFIG, ADAPTER_WEIGHTS) if is_adapter else MODEL_FILES),
            )
        shards = [] if is_adapter else sorted(checkpoint.glob(SHARDS))
        for path in [*(checkpoint / name for name in names), *shards]:
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    return sorted(out.iterdir())


def write_merged(checkpoint: Path, folder: Path) -> None:
    """Write a model in float32 whose weights hold what an adapter adds, where there is one."""
    model = load_checkpoint(str(checkpoint), dtype=torch.float32).model
    if is_adapter_folder(checkpoint):
        merge_adapter(model)
    model.save_pretrained(folder)
    name_rope_for_older_readers(folder / "config.json")


def _check(checkpoint: Path, out: Path, *, is_adapter: bool, merge: bool) -> None:
    check_is_checkpoint(checkpoint, needs_processor=False)
    if merge and not is_adapter:
        what = "there is no adapter to merge, all weights are here already"
        raise ConfigError(what, where=str(checkpoint), fix="leave --merge out")
    check_is_checkpoint(checkpoint, needs_processor=merge)
    check_new_folder(out)
    check_checkpoint_weights(str(checkpoint), read_model_config(str(checkpoint)))
