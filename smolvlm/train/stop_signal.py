"""A run that Ctrl-C or SIGTERM stops is saved first, where `train.enable_jit_checkpoint` asks for
it.

In: the trainer's arguments. Out: a context in which it trains. The step under way ends, then its
evaluation where one is planned; then a checkpoint is written as any other, with its marker, and the
signal is sent once more to whoever had it before: the command line says what is kept and exits with
130 or 143. A second signal meanwhile goes there at once.

transformers' own callback (5.23) waits three seconds, saves the state before a step and then does
the step, and ends the training as if it were done: a final model, a report, exit status 0.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from smolvlm.errors import ConfigError

SETTING = "train.enable_jit_checkpoint"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def check_stop_signal(arguments: TrainingArguments) -> None:
    """Refuse the setting where it could not be kept to.

    Raises:
        ConfigError: several ranks, or a thread that signals do not reach.
    """
    if not arguments.enable_jit_checkpoint:
        return
    what = None
    if arguments.world_size > 1:
        what = (
            f"{arguments.world_size} ranks may hear of a signal in different steps, and then wait"
        )
        what += " for each other for ever"
    elif threading.current_thread() is not threading.main_thread():
        what = "signals reach the main thread alone, and this run is in another"
    if what is not None:
        fix = "take it out; save more often (train.save_steps): a stopped run goes on from there"
        raise ConfigError(what, where=f"{SETTING}=true", fix=fix)


@contextmanager
def saved_when_stopped(
    trainer: Trainer, finish_checkpoint: Callable[[], None], *, is_asked: bool
) -> Iterator[None]:
    """While a run trains, let Ctrl-C and SIGTERM end it with a checkpoint.

    Args:
        trainer: that trains in the block.
        finish_checkpoint: returns once the last checkpoint has its marker.
        is_asked: whether the setting is true; else nothing is changed.
    """
    if not is_asked:
        yield
        return
    callback = SaveWhenStopped(finish_checkpoint)
    trainer.add_callback(callback)
    callback.listen()
    try:
        yield
    finally:
        callback.stop_listening()
    if callback.stopped_by is not None:  # in the last step, or `save_strategy: best` did not save
        signal.raise_signal(callback.stopped_by)


class SaveWhenStopped(TrainerCallback):
    """Ends a run with a checkpoint once one of the signals has come."""

    def __init__(self, finish_checkpoint: Callable[[], None]) -> None:
        self._finish_checkpoint = finish_checkpoint
        self._earlier: dict[int, Any] = {}
        self.stopped_by: int | None = None
        """The signal's number; None while none has come."""

    def listen(self) -> None:
        """Take the signals over."""
        for number in _SIGNALS:
            self._earlier[number] = signal.signal(number, self._stop)

    def stop_listening(self) -> None:
        """Put the handlers back that were there before; does nothing the second time."""
        for number in _SIGNALS:
            if signal.getsignal(number) == self._stop:
                signal.signal(number, self._earlier[number])

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        if self.stopped_by is not None:
            control.should_log = control.should_save = True

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        if self.stopped_by is not None:
            self._finish_checkpoint()
            signal.raise_signal(self.stopped_by)

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        self.stopped_by = number
        self.stop_listening()
