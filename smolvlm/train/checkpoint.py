"""The files of a checkpoint: model or adapters, processor, and the marker that says it is whole.

Files are written in the step's place, since the next step changes what they hold; but for the
optimizer's state, two thirds of all, of which a copy is written later where memory has room for it.
That, getting files to the disk, their digests, the marker and the deletion of older checkpoints
happen on a thread while training goes on; the next save waits for it, and so does the end of the
run.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from smolvlm.checkpoints.adapters import Adapters
from smolvlm.checkpoints.context import name_rope_for_older_readers
from smolvlm.checkpoints.peft_layers import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from smolvlm.disk.atomic_files import sync_file, sync_folder, sync_tree
from smolvlm.disk.system_errors import os_errors_of
from smolvlm.train.checkpoint_folder import clear, delete_oldest, mark_whole
from smolvlm.train.resuming import RunIdentity

UNFINISHED = ".unfinished-model"
"""Where a run's final model is written, in its folder; one name for all ranks."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointFiles:
    """What a run's checkpoints hold besides the trainer's own state."""

    save_processor: Callable[[Path], None]
    identity: RunIdentity
    """Of the run; a checkpoint is resumed by no other."""
    write_card: Callable[[Path], object] = lambda _: None
    """Writes the model's card."""
    adapters: Adapters | None = None
    """Saved in place of the model."""

    def complete(self, folder: Path) -> None:
        """Write beside a model's weights, or an adapter's, what those who load it need."""
        name_rope_for_older_readers(folder / "config.json")
        self.save_processor(folder)
        self.write_card(folder)

    def finish(self, folder: Path, *, step: int) -> None:
        """Sync a folder and mark it as whole, once everything else is in it."""
        mark_whole(folder, self.identity.as_marker(step=step))


@contextmanager
def final_model(out: Path, *, is_writer: bool, meet: Callable[[], object]) -> Iterator[Path]:
    """Yield the folder that a run's final model is saved to; its files are put into `out` then.

    Args:
        out: the run's folder.
        is_writer: whether this rank writes.
        meet: returns once all ranks have called it.

    Raises:
        OSError: it cannot be written; what is in `out` is as it was.
    """
    unfinished = out / UNFINISHED
    if is_writer:
        shutil.rmtree(unfinished, ignore_errors=True)
    meet()
    try:
        with os_errors_of(unfinished):
            yield unfinished
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    meet()
    if is_writer:
        _put_in_place(unfinished, out)


def _put_in_place(unfinished: Path, out: Path) -> None:
    """Move the files of a final model into its run's folder, once they are on the disk.

    Weights and adapters of an earlier run there go: they would be taken for this one's.
    """
    sync_tree(unfinished)
    new = sorted(unfinished.iterdir())
    for path in new:
        if path.is_dir():
            shutil.rmtree(out / path.name, ignore_errors=True)
        path.replace(out / path.name)
    names = {path.name for path in new}
    former = [*out.glob("model*.safetensors*"), out / ADAPTER_CONFIG, out / ADAPTER_WEIGHTS]
    for path in former:
        if path.name not in names:
            path.unlink(missing_ok=True)
    unfinished.rmdir()
    sync_folder(out)


class CheckpointFinisher:
    """Finishes checkpoints one after another, behind the steps."""

    def __init__(
        self, files: CheckpointFiles, *, limit: int | None, logs: Sequence[Path] = ()
    ) -> None:
        """
        Args:
            files: what marks a folder.
            limit: how many checkpoints are kept; None and 0 keep all.
            logs: files of the run that a resumed one goes on with: synced before each marker.
        """
        self._files = files
        self._limit = limit
        self._logs = logs
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._writes: list[Callable[[], None]] = []

    def __enter__(self) -> None:
        """Do nothing; `with` finishes the last checkpoint at its end."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Wait for the last checkpoint; what went wrong with it must not hide what ended a run."""
        try:
            self.wait()
        except OSError as unfinished:
            if error is None:
                raise
            error.add_note(f"the last checkpoint is not whole: {unfinished}")

    def begin(self, folder: Path) -> None:
        """Wait for the last checkpoint, then make room for one that is written now.

        Raises:
            OSError: the last one could not be finished, or the folder cannot be emptied.
        """
        self.wait()
        self._writes = []
        clear(folder)

    def write_later(self, write: Callable[[], None]) -> None:
        """Have something written into the checkpoint that is being written, behind the steps."""
        self._writes.append(write)

    @contextmanager
    def dropping(self, folder: Path) -> Iterator[None]:
        """Delete a folder that cannot be written whole: on a full disk the run's log needs room."""
        try:
            yield
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def finish(self, folder: Path, *, step: int, best: str | None) -> None:
        """Have a folder that was written synced and marked, then older ones deleted.

        Args:
            folder: of the checkpoint, all its files written.
            step: of the run.
            best: folder of the best checkpoint, if there is one; it stays.
        """
        writes, self._writes = self._writes, []
        self._pending = self._thread.submit(self._finish, folder, step, best, writes)

    def check(self) -> None:
        """Raise what went wrong with the last checkpoint, if that is known already."""
        if self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Return once the last checkpoint is finished.

        Raises:
            OSError: it could not be: the folder is not marked, and no older one was deleted.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _finish(
        self, folder: Path, step: int, best: str | None, writes: list[Callable[[], None]]
    ) -> None:
        with self.dropping(folder):
            with os_errors_of(folder):
                while writes:
                    writes.pop(0)()  # and its copy is freed
            for log in self._logs:
                if log.exists():
                    sync_file(log)
            self._files.finish(folder, step=step)
        delete_oldest(folder.parent, limit=self._limit, best=best)
