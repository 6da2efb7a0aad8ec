"""Our system: the trainer as `smolvlm train` builds it, over a plan whose steps hold the
benchmark's rows.

The plan alone differs from a user's run: which rows a step holds is given, so that all systems
learn from the same ones. Trees and packs within a step are the planner's own.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.job import Job, shared_arguments
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.processor_files import save_processor
from smolvlm.config.load import load_run_config
from smolvlm.config.schema import DataConfig
from smolvlm.datasets.builder import budget_of
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.packing.columns import PlannedPacks
from smolvlm.datasets.packing.measured import MeasuredSet
from smolvlm.datasets.packing.plan import Plan, fill_packs
from smolvlm.datasets.packing.trees import gather_trees
from smolvlm.model.vision_cache import open_vision_cache
from smolvlm.train.arguments import training_arguments
from smolvlm.train.checkpoint import CheckpointFiles
from smolvlm.train.planned_rows import plan_run
from smolvlm.train.resuming import run_identity
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer
from smolvlm.train.trainer_parts import TrainerParts


def build_ours(job: Job) -> SmolVLMTrainer:
    """Return the trainer, ready to train."""
    config = load_run_config(_write_run_file(job))
    prompt, planned = plan_run(config)
    plan = plan_steps(planned.measured, [step.rows for step in job.steps], config.data)
    train = config.train.model_copy(update={"packs_per_step": plan.packs_per_step})
    checkpoint = load_checkpoint(config.model.path)
    rates = LearningRates(full=job.learning_rates)
    freeze(checkpoint.model, rates)
    cache = None
    if config.data.vision_cache and job.variant == "frozen_tower":
        cache = open_vision_cache(
            job.work_dir / "vision_cache",
            checkpoint.model,
            compute_dtype="bfloat16" if job.precision == "bf16" else "float32",
            keeps_connector=False,
        )
    dataset = PackDataset(
        planned.measured,
        plan,
        encoder=prompt.encoder(loss_weighting=config.data.loss_weighting),
        settings=prompt.media,
        options=PackOptions(read_features=cache.read if cache else None),
    )
    parts = TrainerParts(
        learning_rates=rates,
        files=CheckpointFiles(
            save_processor=lambda folder: save_processor(
                config.model.path, folder, media=prompt.media
            ),
            identity=run_identity(config.model_dump(mode="json"), plan),
        ),
        vision_cache=cache,
    )
    arguments = training_arguments(train, num_steps=plan.num_steps)
    trainer = SmolVLMTrainer(checkpoint.model, arguments, train_dataset=dataset, parts=parts)
    trainer.check_optimizer()
    return trainer


def plan_steps(measured: MeasuredSet, steps: list[tuple[int, ...]], data: DataConfig) -> Plan:
    """Return a plan whose step s holds exactly the rows `steps[s]`, in as few packs as the planner
    needs."""
    budget = budget_of(data)
    by_step: list[PlannedPacks] = []
    for rows in steps:  # one file, all of its rows used: row numbers are its own
        trees = gather_trees(
            np.array(rows), measured.lengths, budget=budget, max_branches=data.max_branches
        )
        by_step.append(fill_packs(trees, budget=budget))
    most = max(len(packs) for packs in by_step)
    padded = [
        packs.reordered(np.where(np.arange(most) < len(packs), np.arange(most), -1))
        for packs in by_step
    ]
    return Plan(
        packs=PlannedPacks.joined(padded),
        packs_per_step=most,
        epoch_ends=(len(steps),),
        budget=budget,
    )


def _write_run_file(job: Job) -> Path:
    data: dict[str, Any] = {
        "mixture": [{"json_path": str(job.rows_file), "name": job.scenario}],
        "max_tokens_per_pack": job.max_tokens_per_pack,
    }
    if job.variant == "all_trained":
        data["max_tiles_per_pack"] = job.batch_size * job.tiles_a_row
    settings = {
        "model": {"path": str(job.model_dir)},
        "data": data,
        "train": {
            "output_dir": str(job.work_dir / "ours"),
            "resume_from_checkpoint": False,
            "activation_checkpointing": job.checkpoints_activations,
            **{f"{tower}_lr": rate for tower, rate in job.learning_rates.items()},
            **shared_arguments(job),
        },
    }
    run_file = job.work_dir / "run.yaml"
    run_file.write_text(json.dumps(settings, indent=1), encoding="utf-8")
    return run_file
