"""The evaluations of one run: before, during and after training, what is kept and said of them.

In: a run's settings, its model, the trainer's events. Out: answers and scores in the run's folder,
and lines for a person: each evaluation's scores, and which of them are worse than those of the
untrained model.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from smolvlm.checkpoints.load import Checkpoint
from smolvlm.config.eval_metrics import PREFIX
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.errors import SampleError
from smolvlm.eval.evaluate import Evaluation, EvaluationOptions, Evaluator, RankShare
from smolvlm.eval.prediction_files import write_predictions
from smolvlm.eval.scoring import Metric
from smolvlm.model.vision_cache import VisionCache
from smolvlm.protocols import VisionLanguageModel
from smolvlm.report.answer_log import FILE_NAME as ANSWERS
from smolvlm.report.answer_log import answer_line
from smolvlm.report.files import Metrics, read_metrics
from smolvlm.report.worse import scores_of, worse_by_source, worse_scores
from smolvlm.runs.evaluation import build_evaluator
from smolvlm.train.arguments import trains_in_bf16
from smolvlm.train.engines.sharding import whole_weights
from smolvlm.train.log import LineFile
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer
from smolvlm.train.train import TrainedRun
from smolvlm.train.trainer_parts import Evaluations

Show = Callable[[Sequence[Metric]], None]
"""Shown the metrics of an evaluation before or after training, on one rank."""


class RunEvaluation(TrainerCallback):
    """One evaluator, asked before, during and after training."""

    def __init__(self, config: RunConfig, *, say: Callable[[str], None], show: Show | None) -> None:
        """
        Args:
            config: the run's settings.
            say: told, on one rank, each evaluation's scores, and what is worse than before.
            show: shown the metrics before and after training.
        """
        self._config = config
        self._say = say
        self._show = show
        self._output_dir = Path(config.train.output_dir)
        self._evaluator: Evaluator | None = None
        self._last: Evaluation | None = None
        self._start: Metrics = {}
        """The line of the untrained model's scores; empty where there is none."""
        self._untrained: Evaluation | None = None
        self._answers = LineFile(self._output_dir / ANSWERS)

    def make(
        self,
        checkpoint: Checkpoint,
        prompt: PromptSettings,
        cache: VisionCache | None,
        resume: Path | None,
    ) -> Evaluations:
        """Build the evaluator for the loaded model; evaluate the untrained model if asked.

        A run that is resumed did so when it began.
        """
        state = PartialState()
        self._evaluator = build_evaluator(
            self._config,
            prompt,
            uses_bf16=trains_in_bf16(self._config.train),
            options=EvaluationOptions(
                cache=cache,
                share=RankShare(rank=state.process_index, num_ranks=state.num_processes),
            ),
        )
        at_start = self._before(checkpoint, resume)
        return Evaluations(evaluate=self._evaluate, at_start=at_start)

    def _before(self, checkpoint: Checkpoint, resume: Path | None) -> Mapping[str, float]:
        """Evaluate the untrained model where a run begins; else read what it scored then."""
        assert self._evaluator is not None
        state, before = PartialState(), self._output_dir / "predictions-before.jsonl"
        if resume is not None:
            self._start = _start_line(self._output_dir / "metrics.jsonl")
            return {}
        if not self._config.eval.at_start:
            if state.is_main_process:  # an earlier run's, perhaps of another model
                before.unlink(missing_ok=True)
                before.with_suffix(".parquet").unlink(missing_ok=True)
            return {}
        # The trainer moves the model later; until then a CPU would compute in what suits the GPU.
        assert state.device is not None
        if checkpoint.model.device.type != state.device.type:
            checkpoint.model.to(state.device)
        evaluation = self._evaluator(checkpoint.model)
        self._write(evaluation, before)
        self._untrained = evaluation
        metrics = evaluation.as_log()
        self._start = {f"{PREFIX}{name}": value for name, value in metrics.items()}
        return metrics

    def _evaluate(self, model: VisionLanguageModel) -> Mapping[str, float]:
        assert self._evaluator is not None
        self._last = self._evaluator(model)
        return self._last.as_log()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Keep of the answers over time those until the step that the run resumes from."""
        if not state.is_world_process_zero:
            return
        self._answers.keep_until(state.global_step or -1)
        if state.global_step == 0 and self._untrained is not None:
            self._answers.append(answer_line(0, self._untrained.predictions))
        self._untrained = None

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Say what an evaluation amid training found."""
        if state.is_world_process_zero and metrics:
            self._tell(metrics, step=state.global_step)
            assert self._last is not None
            self._answers.append(answer_line(state.global_step, self._last.predictions))

    def _tell(self, metrics: Mapping[str, float], *, step: int) -> None:
        found = [
            f"{score.metric} {score.value:.4f}" + (f" ({score.interval})" if score.interval else "")
            for score in scores_of(metrics)
            if not score.source
        ]
        self._say(f"eval at step {step}: {', '.join(found)}")
        for source, words in worse_by_source(worse_scores(self._start, metrics)).items():
            where = f" on {source}" if source else ""
            self._say(f"worse than before training{where}, at step {step}: {words}")

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
            metrics = {f"{PREFIX}{name}": value for name, value in evaluation.as_log().items()}
            if not run.trainer.args.load_best_model_at_end:
                # The best model's scores stand in the log already, at their step.
                run.trainer.log(dict(metrics))
                if run.trainer.is_world_process_zero():
                    step = run.trainer.state.global_step
                    self._tell(metrics, step=step)
                    self._answers.append(answer_line(step, evaluation.predictions))
        self._write(evaluation, answers)

    def _write(self, evaluation: Evaluation, path: Path) -> None:
        if PartialState().is_main_process:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_predictions(evaluation.predictions, path)
            if self._show is not None:
                self._show(evaluation.metrics)


def _start_line(path: Path) -> Metrics:
    """Return the line of step 0 in `metrics.jsonl`; empty where there is none, or it is damaged."""
    try:
        _, evals = read_metrics(path)
    except SampleError:
        return {}
    return next((line for line in evals if line["step"] == 0), {})


def _ends_evaluated(trainer: SmolVLMTrainer) -> bool:
    """Say whether the last evaluation was of the weights that the run ended with."""
    lines = [line for line in trainer.state.log_history if "eval_loss" in line]
    state = trainer.state
    if not lines or lines[-1]["step"] != state.global_step:
        return False
    return not trainer.args.load_best_model_at_end or state.best_global_step == state.global_step
