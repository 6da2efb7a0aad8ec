"""A held-out set through a run's model, or any checkpoint's: settings in, an `Evaluation` out; nothing is printed."""

from collections.abc import Sequence
from pathlib import Path

import torch

from smolvlm.checkpoints.context import context_tokens
from smolvlm.config.load import config_from, load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.builder import measure_mixture, one_pass, read_prompt
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.errors import ConfigError, located
from smolvlm.eval.evaluate import Evaluation, Evaluator
from smolvlm.generate.answers import GenerationSettings
from smolvlm.model.vision_cache import VisionCache
from smolvlm.runs.model import with_model
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


def evaluate_checkpoint(config: RunConfig) -> Evaluation:
    """Answer a run's held-out set with the model that `model.path` names, and score the answers.

    Raises:
        ConfigError, SampleError: there is no held-out set, or it or the checkpoint is wrong.
    """
    if config.data.eval_mixture is None:
        what = "nothing to evaluate on"
        raise ConfigError(what, where="data.eval_mixture", fix="give --mixture FILE, or set data.eval_mixture")
    checkpoint = load_run_checkpoint(config)
    context = context_tokens(checkpoint.model.config)
    with located(config.model.path):
        prompt = read_prompt(checkpoint.processor, config.data, context_tokens=context)
    uses_bf16 = bool(config.train.arguments.get("bf16"))  # a GPU's own choice is not asked of this CPU
    return build_evaluator(config, prompt, cache=None, uses_bf16=uses_bf16)(checkpoint.model)


def config_of(target: str, overrides: Sequence[str], *, mixture: Path | None = None) -> RunConfig:
    """Return the settings that something is evaluated with.

    Args:
        target: a run folder or one of its checkpoints (its own weights stand in place of the base's), a run file, a
            checkpoint's folder or a hub id.
        overrides: `section.key=value`.
        mixture: the held-out rows; the run's `eval_mixture` by default.

    Raises:
        ConfigError: there is nothing of that name, or nothing to evaluate on.
    """
    more = [f"data.eval_mixture={mixture.absolute()}"] if mixture else []
    folder = Path(target)
    for run_file in (folder / "run.yaml", folder.parent / "run.yaml"):
        if folder.is_dir() and run_file.is_file():
            trained = [f"model.path={folder.absolute()}"]
            return load_run_config(run_file, [*overrides, *more, *trained])
    if folder.suffix in (".yaml", ".yml") and folder.is_file():
        return with_model(load_run_config(folder, [*overrides, *more]))
    if mixture is None:
        missing = "" if folder.exists() else f"no such folder ({folder.absolute()}): "
        raise ConfigError(
            f"{missing}neither a run folder nor a run file, so there is no eval_mixture",
            where=target,
            fix="give a run folder, or --mixture FILE with a checkpoint or a hub id",
        )
    return bare_config(target, [*overrides, *more])


def bare_config(model_path: str, overrides: Sequence[str]) -> RunConfig:
    """Return settings for a checkpoint alone: the defaults, and the overrides over them."""
    folder_or_id = str(Path(model_path).absolute()) if Path(model_path).exists() else model_path
    content = {
        "model": {"path": folder_or_id},
        "data": {"mixture": []},
        "train": {"output_dir": "."},
    }
    return config_from(content, overrides, where=model_path)
