"""A run from its settings to a trained checkpoint: build, load, fit.

In: a `RunConfig`. Out: `output_dir` with checkpoints, metrics and the final model. Everything that can be refused is
refused before the model loads: settings, rows, headers, plan.
"""

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from transformers import TrainingArguments

from smolvlm.config.adapters import AdapterConfig, PartName
from smolvlm.config.load import dump_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.builder import PlannedData, kind_of_rows, one_pass, plan_data, read_prompt
from smolvlm.datasets.dataset import SupervisedDataset
from smolvlm.datasets.length_index import Report
from smolvlm.datasets.plan import deal_to_ranks, imbalance, plan_training
from smolvlm.encoding.prompts import PromptSettings
from smolvlm.errors import ConfigError
from smolvlm.model.adapters import Adapters, attach_adapters
from smolvlm.model.load import Checkpoint, load_checkpoint, load_processor
from smolvlm.model.peft_layers import is_adapter_folder
from smolvlm.model.processor_files import save_processor
from smolvlm.model.towers import Tower, freeze
from smolvlm.model.vision_cache import VisionCache, open_vision_cache
from smolvlm.train.arguments import planned_length, seed_of, training_arguments
from smolvlm.train.checkpoint import find_checkpoint, run_identity
from smolvlm.train.flops import compute_cost
from smolvlm.train.methods import method_of
from smolvlm.train.reference import reference_logps
from smolvlm.train.smolvlm_trainer import Evaluate, SmolVLMTrainer, TrainerParts

MISSING_TAGS = (
    "note: this checkpoint's vocabulary has no <row_r_col_c> tags, so the tags of cut pictures become 5 to 9 pieces of "
    "text each, as in the released processor; data.image_splitting=false avoids them"
)
TOWER_OF: Mapping[PartName, Tower] = {
    "vision": "vision_tower",
    "connector": "connector",
    "language": "language_model",
}
"""The run file's `adapters` call them by the short names."""
MakeEvaluate = Callable[[Checkpoint, PromptSettings, VisionCache | None], Evaluate | None]
"""Builds the evaluation once the model is there; eval is a neighbour that this room does not know."""
MeasuringBar = Callable[[], AbstractContextManager[Report | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedRun:
    """What `train` leaves in memory."""

    checkpoint: Checkpoint
    prompt: PromptSettings
    planned: PlannedData
    trainer: SmolVLMTrainer
    vision_cache: VisionCache | None


def learning_rates(config: RunConfig) -> dict[Tower, float]:
    """Return the learning rate of each tower, its adapter's where it has one; 0 is frozen."""
    return {tower: config.rate_of(part) for part, tower in TOWER_OF.items()}


def plan_run(config: RunConfig, *, report: Report | None = None) -> tuple[PromptSettings, PlannedData]:
    """Read the processor, the rows and their headers, and plan every step; the model is not loaded.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to mend it.
    """
    prompt = read_prompt(load_processor(config.model.path), config.data, where=config.model.path)
    num_epochs, max_steps = planned_length(config.train)
    planned = plan_data(
        config.data,
        prompt=prompt,
        packs_per_step=config.train.packs_per_step,
        seed=seed_of(config.train),
        kind=kind_of_rows(config.train),
        num_epochs=num_epochs,
        max_steps=max_steps,
        report=report,
    )
    return prompt, planned


def train(
    config: RunConfig, *, make_evaluate: MakeEvaluate | None = None, measuring_bar: MeasuringBar = nullcontext
) -> TrainedRun:
    """Train as the settings say; resumes by itself where `output_dir` holds a whole checkpoint of the same run.

    Args:
        config: the settings, complete.
        make_evaluate: makes what evaluates during training, once the model is there.
        measuring_bar: gives what shows progress while rows are measured.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to mend it.
    """
    if is_adapter_folder(config.model.path):
        fix = "merge it first: smolvlm export FOLDER --to transformers --merge --out DIR"
        raise ConfigError("training begins at a model, and this is an adapter", where=config.model.path, fix=fix)
    with measuring_bar() as report:
        prompt, planned = plan_run(config, report=report)
    arguments = training_arguments(config.train, planned.plan)
    identity = run_identity(config.model_dump(mode="json"), planned.plan)
    output_dir = Path(config.train.output_dir)
    resume = find_checkpoint(config.train.resume_from_checkpoint, output_dir=output_dir, identity=identity)
    checkpoint = load_checkpoint(config.model.path, dtype=getattr(torch, config.model.dtype))
    rates = learning_rates(config)
    adapters = _attach_adapters(config, checkpoint, rates, resume=resume)
    freeze(checkpoint.model, rates)
    cache = _vision_cache(config, checkpoint.model, rates, uses_bf16=bool(arguments.bf16))
    cost = compute_cost(checkpoint.model.config, rates, adapted=adapters.kinds if adapters else ())
    order = deal_to_ranks(
        planned.plan,
        num_ranks=arguments.world_size,
        cost_per_token=cost.per_token,
        cost_per_tile=cost.per_tile,
    )
    dataset = SupervisedDataset(
        planned.measured,
        planned.plan,
        encoder=prompt.encoder(loss_weighting=config.data.loss_weighting),
        settings=prompt.media,
        order=order,
        read_features=cache.read if cache else None,
        on_bad_sample=config.data.on_bad_sample,
    )
    method = method_of(config.train)
    if method.needs_reference:
        dataset.reference_logps = _reference(config, checkpoint.model.to(arguments.device), dataset, arguments, cache)
    parts = TrainerParts(
        learning_rates=rates,
        save_processor=lambda folder: save_processor(config.model.path, folder, media=prompt.media),
        identity=identity,
        vision_cache=cache,
        adapters=adapters,
        evaluate=make_evaluate(checkpoint, prompt, cache) if make_evaluate else None,
        log_sample_ids=config.train.log_sample_ids,
        max_bad_fraction=config.data.max_bad_fraction,
        method=method,
        max_prefetch_bytes=config.data.prefetch_mb * 10**6,
    )
    trainer = SmolVLMTrainer(checkpoint.model, arguments, train_dataset=dataset, parts=parts)
    if trainer.is_world_process_zero():
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / "run.yaml").write_text(dump_run_config(config))
        if prompt.missing_tags:
            print(MISSING_TAGS, file=sys.stderr)
        print(f"{plan_summary(planned)}\n{trainer.check_optimizer()}", file=sys.stderr)
        if adapters is not None:
            print(adapters, file=sys.stderr)
        if arguments.world_size > 1:
            costs = (cost.per_token, cost.per_tile)
            waiting = imbalance(planned.plan, order, num_ranks=arguments.world_size, costs=costs)
            print(f"{arguments.world_size} ranks wait {waiting:.1%} of the time, by estimated cost", file=sys.stderr)
    if resume and trainer.is_world_process_zero():
        print(f"going on from {resume}", file=sys.stderr)
    trainer.fit(resume)
    trainer.save_model(str(output_dir))
    return TrainedRun(checkpoint=checkpoint, prompt=prompt, planned=planned, trainer=trainer, vision_cache=cache)


def plan_summary(planned: PlannedData) -> str:
    """Return the plan in two lines."""
    plan, lengths = planned.plan, planned.measured.lengths
    return (
        f"{len(lengths):,} rows, {int(lengths.num_supervised_tokens.sum()):,} supervised of "
        f"{int(lengths.num_tokens.sum()):,} tokens; {len(planned.skipped):,} rows skipped\n"
        f"{plan.num_steps:,} steps, {plan.num_used_packs:,} packs, {int(plan.packs.num_samples.sum()):,} samples of "
        f"{plan.packs.num_rows:,} rows; fill "
        f"{plan.token_fill:.1%} of tokens, {plan.tile_fill:.1%} of tiles"
    )


def _reference(
    config: RunConfig, model: Any, dataset: SupervisedDataset, arguments: TrainingArguments, cache: VisionCache | None
) -> Float32[np.ndarray, "row 2"]:
    """Return what the model as it is now thinks of every row's answers."""
    measured = dataset.measured
    once = replace(measured, lengths=replace(measured.lengths, repeats=np.ones(len(measured.lengths), np.float32)))
    packs = SupervisedDataset(
        once,
        plan_training(once.lengths, one_pass(config.data)),
        encoder=dataset.encoder,
        settings=dataset.settings,
        read_features=cache.read if cache else None,
        on_bad_sample=config.data.on_bad_sample,
    )
    return reference_logps(
        model,
        packs,
        folder=Path(config.train.output_dir),
        identity="\0".join((config.model.path, config.model.dtype, repr(dataset.settings))),
        rank=arguments.process_index,
        num_ranks=arguments.world_size,
        compute_dtype=torch.bfloat16 if arguments.bf16 else torch.float32,
        cache=cache,
    )


def _attach_adapters(
    config: RunConfig, checkpoint: Checkpoint, rates: Mapping[Tower, float], *, resume: Path | None
) -> Adapters | None:
    """Put the adapters into the model that the settings ask for; None where they ask for none."""
    kinds: dict[Tower, AdapterConfig] = {
        TOWER_OF[part]: entry for part, entry in config.adapters.entries() if entry.is_adapter
    }
    if not kinds:
        return None
    return attach_adapters(
        checkpoint.model,
        kinds,
        base=config.model.path,
        seed=seed_of(config.train),
        whole=[tower for tower, rate in rates.items() if rate > 0 and tower not in kinds],
        resume=resume,
    )


def _vision_cache(
    config: RunConfig, model: Any, rates: Mapping[Tower, float], *, uses_bf16: bool
) -> VisionCache | None:
    """Open the cache where nothing in the tower trains, no adapter either."""
    if not config.data.vision_cache or rates["vision_tower"] > 0:
        return None
    keeps_connector = rates["connector"] == 0
    model.caches_connector = keeps_connector
    return open_vision_cache(
        config.data.vision_cache_dir or Path(config.train.output_dir) / "vision_cache",
        model,
        compute_dtype="bfloat16" if uses_bf16 or config.model.dtype == "bfloat16" else "float32",
        keeps_connector=keeps_connector,
    )
