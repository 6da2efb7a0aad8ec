"""Whether the disk has room for what a run will write, asked before it trains.

In: the loaded model and the settings. Out: nothing, or a `ConfigError`. Counted is the least that
is written: weights as they are saved, and AdamW's moments; other optimizers count nothing. A
checkpoint is written beside the one before, so two have to fit, and the final model.
"""

from pathlib import Path

from transformers import TrainingArguments
from transformers.trainer_utils import SaveStrategy

from smolvlm.disk.disk_space import free_bytes, shown_bytes
from smolvlm.errors import ConfigError
from smolvlm.protocols import VisionLanguageModel
from smolvlm.train.checkpoint_folder import whole_checkpoints


def check_room(
    model: VisionLanguageModel, arguments: TrainingArguments, *, saves_adapters: bool
) -> None:
    """Refuse a run whose checkpoints do not fit on the disk.

    Args:
        model: frozen as it will be trained.
        arguments: of the trainer.
        saves_adapters: whether checkpoints hold what trains alone, in place of the model.

    Raises:
        ConfigError: says what is needed and what is free.
    """
    folder = Path(arguments.output_dir or ".")
    free = free_bytes(folder)
    trained = _num_bytes(model, only_trained=True)
    weights = trained if saves_adapters else _num_bytes(model, only_trained=False)
    is_adam = "adam" in str(arguments.optim).lower() and not arguments.save_only_model
    checkpoint = weights + (2 * trained if is_adam and "8bit" not in str(arguments.optim) else 0)
    count = 0
    if arguments.save_strategy != SaveStrategy.NO:
        count = 1 if whole_checkpoints(folder) else 2
    needed = count * checkpoint + weights
    if free is None or free >= needed:
        return
    parts = [f"{count} checkpoints of {shown_bytes(checkpoint)}"] if count else []
    parts.append(f"the model of {shown_bytes(weights)}")
    raise ConfigError(
        f"{' and '.join(parts)} do not fit: {shown_bytes(free)} are free on this disk",
        where=f"train.output_dir={folder}",
        fix="free some room, name a folder on another disk, or save less "
        "(train.save_only_model=true, adapters)",
    )


def _num_bytes(model: VisionLanguageModel, *, only_trained: bool) -> int:
    """Return what parameters take; shared ones count once."""
    return sum(
        parameter.numel() * parameter.element_size()
        for parameter in model.parameters()
        if parameter.requires_grad or not only_trained
    )
