"""What trackers (TensorBoard, Trackio, Weights & Biases) get besides the log's numbers.

They keep a run's arguments and its model's configuration as transformers hands them over. Here the
project has our name, and a private run (`train.private`) is handed over without paths.
"""

import os
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from transformers import PreTrainedConfig, TrainingArguments

PROJECT = "smolvlm"
HIDDEN = "(private)"
_PLACES = ("output_dir", "logging_dir", "resume_from_checkpoint", "deepspeed", "run_name")
"""Arguments that name a place whatever is written there."""


class RunArguments(TrainingArguments):
    """transformers' arguments; overrides what others are told of them."""

    hides_places = False
    """Whether paths are left out of it."""

    def to_dict(self) -> dict[str, Any]:
        """Return what trackers are told."""
        content = super().to_dict()
        return without_places(content) if self.hides_places else content


def name_project() -> None:
    """Have Weights & Biases call the project by our name, unless its variable says otherwise."""
    os.environ.setdefault("WANDB_PROJECT", PROJECT)


def without_places(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with paths replaced; numbers, names and switches stay."""
    return {
        key: HIDDEN if key in _PLACES and value is not None else _hidden(value)
        for key, value in content.items()
    }


def _hidden(value: Any) -> Any:
    if isinstance(value, Mapping):
        return without_places(value)
    if isinstance(value, list | tuple):
        return [_hidden(one) for one in value]
    return HIDDEN if isinstance(value, PurePath) or is_place(value) else value


def is_place(value: object) -> bool:
    """Return whether a value is text that names a file or folder: it has a separator, or begins at
    the home folder. Hub ids have one too, and count."""
    return isinstance(value, str) and ("/" in value or "\\" in value or value.startswith("~"))


def forget_place(config: object) -> None:
    """Take the folder that a model was loaded from out of its configuration, and its parts'."""
    if isinstance(config, PreTrainedConfig):
        config._name_or_path = ""
        for name in config.sub_configs:
            forget_place(getattr(config, name, None))
