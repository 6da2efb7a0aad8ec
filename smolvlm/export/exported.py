"""What is exported, read before any work: a checkpoint's small files, and what its run says.

In: a run's folder, one of its checkpoints, or any folder with a model or an adapter. Out: an
`Exported`, which each form looks at to say whether it can be written at all.
"""

from dataclasses import dataclass
from pathlib import Path

from smolvlm.checkpoints.base import Base, read_base
from smolvlm.checkpoints.load import check_checkpoint_weights, read_model_config
from smolvlm.checkpoints.peft_layers import is_adapter_folder
from smolvlm.config.load import load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.encoding.prompts import PromptSettings, read_prompt_settings
from smolvlm.errors import ConfigError, located


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """A checkpoint whose weights are still to be read."""

    folder: Path
    base: Base
    prompt: PromptSettings
    """How it is asked: its template, tokens, and how its pictures are cut."""
    is_adapter: bool
    average_frames: int
    """How many frames of a clip shared a place in training; 1 without a run file."""
    new_tokens: tuple[str, ...]
    """Texts that the run made single ids."""


def read_exported(checkpoint: Path) -> Exported:
    """Read a checkpoint's small files and the headers of its weights.

    Raises:
        ConfigError: there is no checkpoint, it is damaged, or an adapter lacks its processor.
    """
    is_adapter = is_adapter_folder(checkpoint)
    check_is_checkpoint(checkpoint, needs_processor=is_adapter)
    check_checkpoint_weights(str(checkpoint), read_model_config(str(checkpoint)))
    base = read_base(str(checkpoint))
    with located(str(checkpoint)):
        prompt = read_prompt_settings(base.processor)
    run = _run_of(checkpoint)
    return Exported(
        folder=checkpoint,
        base=base,
        prompt=prompt,
        is_adapter=is_adapter,
        average_frames=1 if run is None else run.data.average_frames,
        new_tokens=() if run is None else tuple(new.token for new in run.model.new_tokens),
    )


def check_is_checkpoint(checkpoint: Path, *, needs_processor: bool) -> None:
    """Refuse a folder that holds no checkpoint.

    Args:
        checkpoint: a path.
        needs_processor: whether an adapter is to be merged, so that its base's processor is not
            the one to ask.

    Raises:
        ConfigError: neither a model nor an adapter is there, or an adapter's processor is missing.
    """
    if not is_adapter_folder(checkpoint) and not (checkpoint / "config.json").is_file():
        what = (
            "neither config.json nor adapter_config.json here"
            if checkpoint.is_dir()
            else "no such folder"
        )
        fix = "give a run's output_dir, or one of its checkpoint-N"
        raise ConfigError(what, where=str(checkpoint), fix=fix)
    if needs_processor and not (checkpoint / "tokenizer.json").is_file():
        what = "no processor beside the adapter"
        raise ConfigError(
            what, where=str(checkpoint), fix="copy the processor's files from the base model"
        )


def _run_of(checkpoint: Path) -> RunConfig | None:
    """Return the settings of the run that a folder, or a checkpoint in it, is of."""
    places = [checkpoint / "run.yaml"]
    if checkpoint.absolute().name.startswith("checkpoint-"):
        places.append(checkpoint.absolute().parent / "run.yaml")
    file = next((place for place in places if place.is_file()), None)
    return None if file is None else load_run_config(file)
