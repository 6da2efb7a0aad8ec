"""The files of a checkpoint: model or adapters, processor, and the marker that says it is whole."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from smolvlm.checkpoints.adapters import Adapters
from smolvlm.checkpoints.context import name_rope_for_older_readers
from smolvlm.checkpoints.peft_layers import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from smolvlm.train.checkpoint_folder import mark_whole, unmark
from smolvlm.train.resuming import RunIdentity


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointFiles:
    """What a run's checkpoints hold besides the trainer's own state."""

    save_processor: Callable[[Path], None]
    identity: RunIdentity
    """Of the run; a checkpoint is resumed by no other."""
    adapters: Adapters | None = None
    """Saved in place of the model."""

    def complete(self, folder: Path) -> None:
        """Write beside a model's weights, or an adapter's, what those who load it need."""
        name_rope_for_older_readers(folder / "config.json")
        self.save_processor(folder)
        for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS) if self.adapters is None else ():
            (folder / name).unlink(
                missing_ok=True
            )  # of an earlier run, and it would be taken for this one's

    def begin(self, folder: Path) -> None:
        """Let a folder not count as whole while it is written over."""
        unmark(folder)

    def finish(self, folder: Path, *, step: int) -> None:
        """Mark a folder as whole, once everything else is in it."""
        mark_whole(folder, self.identity.as_marker(step=step))
