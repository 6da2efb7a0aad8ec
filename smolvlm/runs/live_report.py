"""`report.html` while a run trains: written anew after each evaluation, else about once a minute.

In: the trainer's events, on the first rank. Out: the page and `progress.json`, which says that the
run goes on. A page that took long is not written until a hundred times as long has gone by since
the last: it costs at most a hundredth of a run, and that time stands in the log's own figures. What
goes wrong with it is said once and ends no run.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from smolvlm.report.progress import Progress, end_progress, write_progress
from smolvlm.report.report import write_run_report

EVERY_S = 60.0
MAX_SHARE = 0.01
"""Of the time since the last page that the next may take."""
FIRST_S = 0.6
"""What the first page is taken to cost: matplotlib is imported for it. Runs of less than a minute
have the page of their end alone."""


class LiveReport(TrainerCallback):
    """A context, and the trainer's callback in it; at its end the run is no longer said to go
    on."""

    def __init__(
        self,
        run_dir: Path,
        *,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """
        Args:
            run_dir: the run's output folder.
            say: told what went wrong, once.
            clock: seconds.
        """
        self._run_dir = run_dir
        self._say = say
        self._clock = clock
        self._cost_s = FIRST_S
        self._last_s = clock()
        self._is_writer = False
        self._has_failed = False
        self._num_pages = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the progress; of a run that was stopped, rewrite the page, for it says otherwise."""
        if not self._is_writer:
            return
        with suppress(OSError):
            end_progress(self._run_dir)
        if kind is not None and self._num_pages:
            self._write_page()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Begin to count, and delete what an earlier start that was killed left."""
        self._is_writer = state.is_world_process_zero
        self._last_s = self._clock()
        if self._is_writer:
            with suppress(OSError):
                end_progress(self._run_dir)
            self._tell(state)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Say how far it is: a page that is asked for between two is made of it."""
        if self._is_writer:
            self._tell(state)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Write the page where a minute has gone by."""
        if self._is_writer and self._clock() - self._last_s >= EVERY_S:
            self._write(state)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Write the page with what was found."""
        if self._is_writer:
            self._write(state)

    def _tell(self, state: TrainerState) -> None:
        """Write how far the run is, which takes no time to speak of."""
        progress = Progress(step=state.global_step, num_steps=state.max_steps)
        with suppress(OSError):
            write_progress(self._run_dir, progress)

    def _write(self, state: TrainerState) -> None:
        """Write progress and page, unless they would take too much of the time."""
        began = self._clock()
        if self._cost_s > MAX_SHARE * (began - self._last_s):
            return
        if not (self._run_dir / "metrics.jsonl").is_file():
            return  # nothing to show before the first log line
        self._tell(state)
        self._write_page()
        self._last_s = self._clock()
        self._cost_s = self._last_s - began
        self._num_pages += 1

    def _write_page(self) -> None:
        """Write the page; whatever the error, training is worth more than it."""
        try:
            write_run_report(self._run_dir)
        except Exception as error:  # of any library that draws
            if not self._has_failed:
                self._say(f"note: report.html was not written while training: {error}")
            self._has_failed = True
