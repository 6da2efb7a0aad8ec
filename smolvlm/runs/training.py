"""A whole run: trained, evaluated before, during and after where asked, and its report written.

What spans training, evaluation and the report stands here, since these rooms do not know each
other. Nothing is printed: what there is to say goes to `say`, and metrics to `show`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from accelerate import PartialState
from transformers import TrainerCallback

from smolvlm.checkpoints.load import Checkpoint
from smolvlm.config.eval_metrics import metric_problem
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.errors import ConfigError
from smolvlm.eval.evaluate import Evaluation, EvaluationOptions, Evaluator, RankShare
from smolvlm.eval.prediction_files import write_predictions
from smolvlm.eval.scoring import Metric
from smolvlm.model.vision_cache import VisionCache
from smolvlm.protocols import VisionLanguageModel
from smolvlm.publish.model_card import write_model_card
from smolvlm.report.report import write_run_report
from smolvlm.runs.evaluation import build_evaluator, metrics_by_source
from smolvlm.runs.live_report import LiveReport
from smolvlm.runs.model import Say, nothing, with_model
from smolvlm.train.arguments import trains_in_bf16
from smolvlm.train.engines.sharding import whole_weights
from smolvlm.train.finite import NotFiniteError
from smolvlm.train.run_folder import only_run
from smolvlm.train.run_start import end_run
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer
from smolvlm.train.train import MeasuringBar, TrainedRun, train
from smolvlm.train.trainer_parts import Evaluate

Show = Callable[[Sequence[Metric]], None]
"""Shown the metrics of an evaluation before or after training, on one rank."""


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
        evaluation, run_dir = _RunEvaluation(config, show), Path(config.train.output_dir)
        with LiveReport(run_dir, say=say) as live:
            try:
                run = train(
                    config,
                    make_evaluate=evaluation.make if config.data.eval_mixture is not None else None,
                    callbacks=(*callbacks, live),
                    say=say,
                    measuring_bar=measuring_bar,
                    shows_progress=shows_progress,
                )
            except NotFiniteError:
                if PartialState().is_main_process and (run_dir / "metrics.jsonl").is_file():
                    write_run_report(run_dir)
                raise
            if config.data.eval_mixture is not None and config.eval.at_end:
                evaluation.after(run)
        if run.trainer.is_world_process_zero():
            if not run.was_done:
                end_run(run_dir, seconds=time.monotonic() - began)
            write_run_report(run_dir)
            write_model_card(run_dir)
    return run


def check_best_metric(config: RunConfig) -> None:
    """Raise ConfigError where no evaluation of the held-out mixture writes the metric of the best
    model; rows are not read."""
    metric, mixture = config.train.arguments.get("metric_for_best_model"), config.data.eval_mixture
    if metric is None or mixture is None:
        return
    if (what := metric_problem(metric, metrics_by_source(config))) is not None:
        where = f"train.metric_for_best_model={metric}"
        raise ConfigError(what, where=where, fix="name one of these")


class _RunEvaluation:
    """The evaluations of one run: one evaluator, asked before, during and after training."""

    def __init__(self, config: RunConfig, show: Show | None) -> None:
        self._config = config
        self._show = show
        self._output_dir = Path(config.train.output_dir)
        self._evaluator: Evaluator | None = None
        self._last: Evaluation | None = None

    def make(
        self, checkpoint: Checkpoint, prompt: PromptSettings, cache: VisionCache | None
    ) -> Evaluate:
        """Build the evaluator for the loaded model; evaluate the untrained model if asked."""
        state = PartialState()
        evaluator = build_evaluator(
            self._config,
            prompt,
            uses_bf16=trains_in_bf16(self._config.train),
            options=EvaluationOptions(
                cache=cache,
                share=RankShare(rank=state.process_index, num_ranks=state.num_processes),
            ),
        )
        self._evaluator = evaluator
        before = self._output_dir / "predictions-before.jsonl"
        is_begun = before.exists() and self._config.train.resume_from_checkpoint is not False
        if self._config.eval.at_start and not is_begun:
            # The trainer moves the model later; until then a CPU would compute in what suits the
            # GPU.
            assert state.device is not None
            if checkpoint.model.device.type != state.device.type:
                checkpoint.model.to(state.device)
            self._write(evaluator(checkpoint.model), before)

        def evaluate(model: VisionLanguageModel) -> Mapping[str, float]:
            self._last = evaluator(model)
            return self._last.as_log()

        return evaluate

    def after(self, run: TrainedRun) -> None:
        """Evaluate the trained model unless its last step was; log it and keep its answers.

        The answers of a run that was done before are there; `smolvlm eval` asks again.
        """
        answers = self._output_dir / "predictions.jsonl"
        if run.was_done and answers.is_file():
            return
        assert self._evaluator is not None
        evaluation = self._last if _ends_evaluated(run.trainer) else None
        if evaluation is None:
            with whole_weights(run.checkpoint.model):
                evaluation = self._evaluator(run.checkpoint.model)
            run.trainer.log({f"eval_{name}": value for name, value in evaluation.as_log().items()})
        self._write(evaluation, answers)

    def _write(self, evaluation: Evaluation, path: Path) -> None:
        if PartialState().is_main_process:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_predictions(evaluation.predictions, path)
            if self._show is not None:
                self._show(evaluation.metrics)


def _ends_evaluated(trainer: SmolVLMTrainer) -> bool:
    """Say whether the last evaluation was of the weights that the run ended with."""
    lines = [line for line in trainer.state.log_history if "eval_loss" in line]
    at_the_end = bool(lines) and lines[-1]["step"] == trainer.state.global_step
    return at_the_end and not trainer.args.load_best_model_at_end
