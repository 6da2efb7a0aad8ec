"""When to log, evaluate and save, what every step gives the optimizer, and what the terminal shows
while training."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import DefaultFlowCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from smolvlm.datasets.packing.plan import Plan
from smolvlm.terminal import console as terminal_console
from smolvlm.terminal import say
from smolvlm.train.log import as_logged
from smolvlm.train.progress_line import progress_line
from smolvlm.train.ranks.beats import RankBeats
from smolvlm.train.ranks.waiting import WaitingRanks

SHOWN_AFTER_S = 3
"""A wait for another rank of this length is shown behind the bar."""
SAID_AFTER_S = 60
"""One of this length is a line, where there is no bar."""


class PlanFlowCallback(DefaultFlowCallback):
    """The default flow with the plan's epochs.

    The trainer sees the whole plan as one long epoch; here `epoch` strategies act where a planned
    epoch ends, the trainer's epoch counter is the plan's, and the last step is always logged.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._ends = set(plan.epoch_ends)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> TrainerControl:
        super().on_step_end(args, state, control, **kwargs)
        state.epoch = self._plan.epoch_at(state.global_step)
        if state.global_step in self._ends:
            control.should_log |= args.logging_strategy == IntervalStrategy.EPOCH
            control.should_evaluate |= (
                args.eval_strategy == IntervalStrategy.EPOCH and args.eval_delay <= state.epoch
            )
            control.should_save |= args.save_strategy == SaveStrategy.EPOCH
        if state.global_step >= state.max_steps:
            control.should_log |= args.logging_strategy != IntervalStrategy.NO
        return control

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> TrainerControl:
        return control


class StartLineCallback(TrainerCallback):
    """Logs what an evaluation said of the untrained model, as a line of step 0."""

    def __init__(
        self, metrics: Mapping[str, float], *, log: Callable[[dict[str, float]], None]
    ) -> None:
        """
        Args:
            metrics: without the `eval_` prefix; none are not logged.
            log: the trainer's.
        """
        self._metrics = metrics
        self._log = log

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        if self._metrics and state.global_step == 0:
            self._log(as_logged(self._metrics))


class WholeGradientCallback(TrainerCallback):
    """Gives each trained parameter a gradient in every step.

    In a step without pictures tower and connector have none, and the optimizer would pass them
    over. Among several ranks they always run, with a gradient of zero, so that momentum and weight
    decay go on; here a missing gradient becomes zero, so that the number of ranks makes no
    difference.
    """

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        if args.deepspeed:  # its engine holds the gradients, and steps all parameters that train
            return
        for group in kwargs["optimizer"].param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)


class StepsProgress(Progress):
    """A bar, and beneath it what the last steps were like, whole on a narrow terminal too."""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        for task in self.tasks:
            if words := f"{task.fields['status']}{task.fields['waits']}".strip():
                yield Text(words)


class ProgressBarCallback(TrainerCallback):
    """A bar with steps and time left and a line of figures on a terminal; a line a log
    elsewhere."""

    def __init__(self, beats: RankBeats) -> None:
        """
        Args:
            beats: where the other ranks are.
        """
        self._beats = beats
        self._waiting: WaitingRanks | None = None
        self._console = terminal_console()
        self._bar: Progress | None = None
        self._task: Any = None

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        if not state.is_world_process_zero:
            return
        if args.disable_tqdm or not self._console.is_terminal:
            self._watch_ranks(self._say_waiting, after_s=SAID_AFTER_S)
            return
        self._bar = StepsProgress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task(
            "training", total=state.max_steps, completed=state.global_step, status="", waits=""
        )
        self._bar.start()
        self._watch_ranks(self._show_waiting, after_s=SHOWN_AFTER_S)

    def _watch_ranks(self, show: Callable[[str], None], *, after_s: float) -> None:
        if self._beats.num_ranks > 1:
            self._waiting = WaitingRanks(self._beats, show, after_s=after_s)
            self._waiting.start()

    def _show_waiting(self, words: str) -> None:
        if self._bar is not None:
            self._bar.update(self._task, waits=f"  {words}" if words else "")

    def _say_waiting(self, words: str) -> None:
        if words:
            say(f"since {SAID_AFTER_S} s this run {words}")

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        if self._bar is None:
            return
        self._bar.update(self._task, completed=state.global_step)
        if control.should_evaluate:
            self._bar.update(self._task, waits="  evaluating")

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._task, waits="")

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: object,
    ) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        status = progress_line(logs)
        if self._bar is not None:
            self._bar.update(self._task, status=status)
        else:
            say(f"step {state.global_step}/{state.max_steps}  {status}")

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        if self._waiting is not None:
            self._waiting.stop()
            self._waiting = None
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
