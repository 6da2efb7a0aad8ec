"""The best checkpoint by `eval.best_by`, and an end of training where nothing gets better.

In: the trainer's events. Out: a checkpoint at each new best and where training stops; the model of
the best one at the end. What is the best, and how long ago it was, is read off the log that every
checkpoint holds (`config/best.py`): a run that is killed at any time goes on to stop where it would
have stopped.
"""

import json
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from smolvlm.config.best import best_evaluation, written_metric
from smolvlm.config.eval_metrics import is_greater_better
from smolvlm.config.schema import EvalConfig, RunConfig

_STATE = "trainer_state.json"


def keep_best(arguments: TrainingArguments, best_by: str | None) -> None:
    """Have the trainer end with its best model.

    It is set on arguments that are made: transformers would ask for a checkpoint at every
    evaluation, and `BestCallback` saves those that are needed.
    """
    if best_by is None:
        return
    metric = written_metric(best_by)
    arguments.metric_for_best_model = metric
    arguments.greater_is_better = is_greater_better(metric)
    arguments.load_best_model_at_end = True


def stopped_early(checkpoint: Path, evaluation: EvalConfig) -> int | None:
    """Return the step at which a run stopped for want of anything better, None where it did not.

    Args:
        checkpoint: the one being resumed.
        evaluation: settings; with more patience the run goes on.
    """
    if evaluation.best_by is None or evaluation.patience is None:
        return None
    state = json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
    best = best_evaluation(state["log_history"], evaluation.best_by)
    if best is None or best.num_since < evaluation.patience:
        return None
    return int(state["global_step"])


def best_callbacks(config: RunConfig, *, say: Callable[[str], None]) -> list[TrainerCallback]:
    """Return what saves a run's best model and ends its training; nothing where none is asked for.

    Args:
        config: the run's settings.
        say: told on one rank that training ends.
    """
    if config.eval.best_by is None:
        return []
    out, patience = Path(config.train.output_dir), config.eval.patience
    return [BestCallback(config.eval.best_by, patience=patience, output_dir=out, say=say)]


class BestCallback(TrainerCallback):
    """Saves each new best, and ends training where patience does."""

    def __init__(
        self, best_by: str, *, patience: int | None, output_dir: Path, say: Callable[[str], None]
    ) -> None:
        """
        Args:
            best_by: the metric, as the run file names it.
            patience: evaluations without a better one, after which training ends; None never does.
            output_dir: the run's.
            say: told on one rank that training ends.
        """
        self._best_by = best_by
        self._patience = patience
        self._output_dir = output_dir
        self._say = say

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Find the best checkpoint again, where the run's folder was moved."""
        find_best_again(state, self._output_dir)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Save where the newest evaluation is the best, or the last that is waited for."""
        best = best_evaluation(state.log_history, self._best_by)
        if best is None:
            return
        if best.step == state.global_step:
            control.should_save = True
        elif self._patience is not None and best.num_since >= self._patience:
            control.should_save = control.should_training_stop = True
            if state.is_world_process_zero:
                self._say(
                    f"stopped at step {state.global_step} of {state.max_steps}: {self._best_by} "
                    f"was best at step {best.step} ({best.value:.4f}), {best.num_since} "
                    f"evaluation{'s' * (best.num_since != 1)} ago (eval.patience)"
                )


def find_best_again(state: TrainerState, output_dir: Path) -> None:
    """Point a state at its best checkpoint in the run's folder, wherever that was when it was
    saved."""
    folder = output_dir / f"checkpoint-{state.best_global_step}"
    if state.best_global_step and folder.is_dir():
        state.best_model_checkpoint = str(folder)
