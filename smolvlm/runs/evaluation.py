"""A held-out set through a run's model, or any checkpoint's: settings in, an `Evaluation` out;
nothing is printed."""

from dataclasses import replace
from pathlib import Path

import torch

from smolvlm.checkpoints.context import context_tokens
from smolvlm.checkpoints.peft_layers import base_of, is_adapter_folder
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.builder import measure_mixture, one_pass, open_tables, read_prompt
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.errors import ConfigError, located
from smolvlm.eval.evaluate import Evaluation, EvaluationOptions, Evaluator, ScoredModel
from smolvlm.generate.answers import GenerationSettings
from smolvlm.generate.kept_answers import KeptAnswers
from smolvlm.runs.evaluation_place import place_of
from smolvlm.runs.evaluation_settings import base_of_trained
from smolvlm.train.cpu_ways import computing_as_trained
from smolvlm.train.ranks.computed_once import computed_once
from smolvlm.train.run_model import load_answering_checkpoint


def build_evaluator(
    config: RunConfig,
    prompt: PromptSettings,
    *,
    uses_bf16: bool,
    options: EvaluationOptions | None = None,
) -> Evaluator:
    """Build the evaluation of a run's `eval_mixture`.

    Args:
        config: the run's settings.
        prompt: of the model.
        uses_bf16: whether it runs under bfloat16 autocast; it does so too where the weights are
            bfloat16.
        options: the run's cache where its tower is frozen, the ranks, answers that are kept; the
            metrics are those of the settings.

    Raises:
        ConfigError, SampleError: the held-out set is wrong.
    """
    mixture, data = config.data.eval_mixture, config.data
    assert mixture is not None
    measured = computed_once(
        lambda: measure_mixture(mixture, data, prompt=prompt, max_rows=config.eval.max_rows),
        open_tables=lambda: open_tables(mixture, data),
    )
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
        options=replace(options or EvaluationOptions(), metrics=metrics_by_source(config)),
    )


def metrics_by_source(config: RunConfig) -> dict[str, tuple[str, ...]]:
    """Return the metrics of each source of a run's `eval_mixture`, by its name; rows are not read.

    Raises:
        ConfigError: the mixture is wrong.
    """
    mixture = config.data.eval_mixture
    assert mixture is not None
    sources = load_mixture(mixture, base_dir=config.data.base_dir)
    return {source.name: source.metrics or config.eval.metrics for source in sources}


def evaluate_checkpoint(
    config: RunConfig, *, kept: KeptAnswers | None = None, beside: str | None = None
) -> Evaluation:
    """Answer a run's held-out set with the model that `model.path` names, and score the answers.

    On a GPU where there is one; of several processes that torchrun started each answers its share
    of the rows, and each has the whole evaluation then.

    Args:
        config: the run's settings.
        kept: answers of a stopped evaluation; new ones are kept there.
        beside: the trained model that this one is compared with: it answers in the same ways where
            a CPU has several.

    Raises:
        ConfigError, SampleError: there is no held-out set, or it or the checkpoint is wrong.
    """
    if config.data.eval_mixture is None:
        what = "nothing to evaluate on"
        raise ConfigError(
            what, where="data.eval_mixture", fix="give --mixture FILE, or set data.eval_mixture"
        )
    place = place_of(config)
    checkpoint = load_answering_checkpoint(config, device=place.device, quantized_on=place.device)
    context = context_tokens(checkpoint.model.config)
    num_rows = checkpoint.model.config.text_config.vocab_size
    with located(config.model.path):
        prompt = read_prompt(
            checkpoint.processor, config.data, context_tokens=context, num_rows=num_rows
        )
    options = EvaluationOptions(kept=kept, share=place.share)
    evaluate = build_evaluator(config, prompt, uses_bf16=place.uses_bf16, options=options)
    ways_of = beside or config.model.path
    with computing_as_trained(ways_of, place.device, num_ranks=place.share.num_ranks):
        evaluation = evaluate(checkpoint.model)
    return replace(evaluation, model=scored_model(config.model.path))


def base_config(config: RunConfig, *, target: str) -> RunConfig:
    """Return the settings of an evaluation of what a model was trained from, on the same rows.

    Args:
        config: of the model's own evaluation.
        target: as the user named it.

    Raises:
        ConfigError: nothing beside the model says what it was trained from.
    """
    base = scored_model(config.model.path).base
    if base is None:
        raise ConfigError(
            "nothing here says what it was trained from, so there is no base to compare with",
            where=f"{target} --base",
            fix="give a run's output folder, one of its checkpoints, or an adapter's folder",
        )
    return config.model_copy(update={"model": config.model.model_copy(update={"path": base})})


def scored_model(path: str) -> ScoredModel:
    """Return what a model is called that was loaded from a folder or a hub id.

    Raises:
        ConfigError: an adapter's folder, or the run file beside a checkpoint, cannot be read.
    """
    folder = Path(path)
    checkpoint = str(folder.absolute()) if folder.is_dir() else path
    if is_adapter_folder(path):
        return ScoredModel(checkpoint=checkpoint, base=base_of(path), is_adapter=True)
    return ScoredModel(checkpoint=checkpoint, base=base_of_trained(folder), is_adapter=False)
