"""A whole run: trained, evaluated before, during and after where asked, and its report written.

What spans training, evaluation and the report stands here, since these rooms do not know each
other. Nothing is printed: what there is to say goes to `say`, and metrics to `show`.
"""

import time
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from accelerate import PartialState
from transformers import TrainerCallback

from smolvlm.config.best import written_metric
from smolvlm.config.eval_metrics import metric_problem
from smolvlm.config.schema import RunConfig
from smolvlm.errors import ConfigError
from smolvlm.publish.model_card import write_model_card
from smolvlm.report.report import write_run_report
from smolvlm.runs.evaluation import metrics_by_source
from smolvlm.runs.held_out import RunEvaluation, Show
from smolvlm.runs.live_report import LiveReport
from smolvlm.runs.model import Say, nothing, with_model
from smolvlm.train.checkpoint_folder import step_of
from smolvlm.train.finite import NotFiniteError
from smolvlm.train.run_folder import only_run
from smolvlm.train.run_start import end_run
from smolvlm.train.train import MeasuringBar, RunHooks, TrainedRun, train


def train_and_report(
    config: RunConfig,
    *,
    callbacks: Sequence[TrainerCallback] = (),
    say: Say = nothing,
    show: Show | None = None,
    measuring_bar: MeasuringBar = nullcontext,
    shows_progress: bool = False,
) -> TrainedRun:
    """Train, evaluate as the `eval` section says, and write `report.html`, anew while it trains.

    Args:
        config: the settings, complete.
        callbacks: of transformers, besides the run's own.
        say: receives the notes of the run's start.
        show: shown metrics.
        measuring_bar: gives what shows progress while rows are measured.
        shows_progress: whether a bar or lines on standard error tell how far training is.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to fix it.
    """
    began = time.monotonic()
    check_best_metric(config)
    with only_run(config, say=say):
        config = with_model(config, say=say)
        run_dir = Path(config.train.output_dir)
        has_held_out = config.data.eval_mixture is not None
        evaluation = RunEvaluation(config, say=say, show=show)
        with LiveReport(run_dir, say=say) as live:
            try:
                run = train(
                    config,
                    hooks=RunHooks(
                        make_evaluations=evaluation.make if has_held_out else None,
                        write_card=partial(_write_card, run_dir),
                    ),
                    callbacks=(*callbacks, evaluation, live),
                    say=say,
                    measuring_bar=measuring_bar,
                    shows_progress=shows_progress,
                )
            except NotFiniteError:
                if PartialState().is_main_process and (run_dir / "metrics.jsonl").is_file():
                    write_run_report(run_dir)
                raise
            if has_held_out and config.eval.at_end:
                evaluation.after(run)
        if run.trainer.is_world_process_zero():
            if not run.was_done:
                end_run(run_dir, seconds=time.monotonic() - began)
            write_run_report(run_dir)
            write_model_card(run_dir)
    return run


def _write_card(run_dir: Path, folder: Path) -> None:
    """Write a checkpoint's card; the run's own is written at its end, when its scores are there."""
    if step_of(folder) is not None and (run_dir / "metrics.jsonl").is_file():
        write_model_card(run_dir, into=folder)


def check_best_metric(config: RunConfig) -> None:
    """Raise ConfigError where no evaluation of the held-out mixture writes the metric of the best
    model; rows are not read."""
    mixture, best_by = config.data.eval_mixture, config.eval.best_by
    key, metric = "train.metric_for_best_model", config.train.arguments.get("metric_for_best_model")
    if best_by is not None:
        key, metric = "eval.best_by", written_metric(best_by)
    if metric is None or mixture is None:
        return
    if (what := metric_problem(metric, metrics_by_source(config))) is not None:
        where = f"{key}={metric if best_by is None else best_by}"
        raise ConfigError(what, where=where, fix="name one of these")
