"""`smolvlm eval`, and the evaluation that training uses."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from smolvlm.checkpoints.context import context_tokens
from smolvlm.cli.models import with_model
from smolvlm.config.load import load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.builder import measure_mixture, one_pass, read_prompt
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.errors import ConfigError
from smolvlm.eval.evaluate import Evaluation, Evaluator, Metric, write_predictions
from smolvlm.generate.answers import GenerationSettings
from smolvlm.model.vision_cache import VisionCache
from smolvlm.train.run_model import load_run_checkpoint


def build_evaluator(
    config: RunConfig,
    prompt: PromptSettings,
    *,
    cache: VisionCache | None,
    uses_bf16: bool,
    rank: int = 0,
    num_ranks: int = 1,
) -> Evaluator:
    """Build the evaluation of a run's `eval_mixture`.

    Args:
        config: the run's settings.
        prompt: of the model.
        cache: the run's, where its tower is frozen.
        uses_bf16: whether it runs under bfloat16 autocast; it does so too where the weights are bfloat16.
        rank: of this process.
        num_ranks: that share the rows.

    Raises:
        ConfigError, SampleError: the held-out set is wrong.
    """
    assert config.data.eval_mixture is not None
    measured = measure_mixture(config.data.eval_mixture, config.data, prompt=prompt, max_rows=config.eval.max_rows)
    uses_bf16 |= config.model.dtype == "bfloat16"
    return Evaluator(
        measured,
        prompt=prompt,
        generation=GenerationSettings(
            max_new_tokens=config.eval.max_new_tokens,
            batch_size=config.eval.batch_size,
            compute_dtype=torch.bfloat16 if uses_bf16 else torch.float32,
        ),
        plan=one_pass(config.data),
        cache=cache,
        rank=rank,
        num_ranks=num_ranks,
    )


def run_evaluation(
    target: str, overrides: Sequence[str], *, mixture: Path | None, predictions: Path | None, as_json: bool
) -> Evaluation:
    """Evaluate a run folder or a checkpoint."""
    config = _config_for(target, overrides, mixture=mixture)
    if config.data.eval_mixture is None:
        raise ConfigError("nothing to evaluate on", where="data.eval_mixture", fix="give --mixture FILE")
    checkpoint = load_run_checkpoint(config)
    context = context_tokens(checkpoint.model.config)
    prompt = read_prompt(checkpoint.processor, config.data, where=config.model.path, context_tokens=context)
    uses_bf16 = bool(config.train.arguments.get("bf16"))  # what a GPU chose by itself is not asked of this CPU
    evaluation = build_evaluator(config, prompt, cache=None, uses_bf16=uses_bf16)(checkpoint.model)
    if predictions is not None:
        write_predictions(evaluation.predictions, predictions)
    show_metrics(evaluation.metrics, as_json=as_json)
    return evaluation


def _config_for(target: str, overrides: Sequence[str], *, mixture: Path | None) -> RunConfig:
    """Return the settings of a run folder, its own model in place of the base; or bare settings for a checkpoint."""
    more = [f"data.eval_mixture={mixture.absolute()}"] if mixture else []
    run_file = Path(target) / "run.yaml"
    if run_file.is_file():
        return load_run_config(run_file, [*overrides, *more, f"model.path={Path(target).absolute()}"])
    if Path(target).suffix in (".yaml", ".yml") and Path(target).is_file():
        return with_model(load_run_config(Path(target), [*overrides, *more]))
    if (Path(target).parent / "run.yaml").is_file():
        own = [f"model.path={Path(target).absolute()}"]
        return load_run_config(Path(target).parent / "run.yaml", [*overrides, *more, *own])
    if mixture is None:
        missing = "" if Path(target).exists() else f"no such folder ({Path(target).absolute()}): "
        raise ConfigError(
            f"{missing}neither a run folder nor a run file, so there is no eval_mixture",
            where=target,
            fix="give a run folder, or --mixture FILE with a checkpoint or a hub id",
        )
    return load_bare_config(target, [*overrides, *more])


def load_bare_config(model_path: str, overrides: Sequence[str]) -> RunConfig:
    """Return settings for a checkpoint alone: the defaults, and the overrides over them."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.yaml"
        path.write_text("model: {}\ndata: {mixture: []}\ntrain: {output_dir: .}\n")
        folder_or_id = Path(model_path).absolute() if Path(model_path).exists() else model_path
        return load_run_config(path, [f"model.path={folder_or_id}", *overrides])


def show_metrics(metrics: Sequence[Metric], *, as_json: bool) -> None:
    """Print metrics: JSON lines on standard output, or a table on standard error."""
    if as_json:
        for metric in metrics:
            row = {"name": metric.name, "value": metric.value, "num_rows": metric.num_rows, "source": metric.source}
            print(json.dumps(row))
        return
    table = Table("source", "metric", "value", "rows", box=None)
    for metric in metrics:
        table.add_row(metric.source, metric.name, f"{metric.value:.4f}", f"{metric.num_rows:,}")
    Console(file=sys.stderr).print(table)
