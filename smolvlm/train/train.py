"""A run from its settings to a trained checkpoint: build, load, fit.

In: a `RunConfig`. Out: `output_dir` with checkpoints, metrics and the final model. Everything that
can be refused is refused before the model loads: settings, rows, headers, plan.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import TrainerCallback, TrainingArguments

from smolvlm.checkpoints.base import Base
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.checkpoints.processor_files import save_processor
from smolvlm.config.load import dump_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.datasets.builder import PlannedData, open_tables
from smolvlm.datasets.dataset import PackDataset, PackOptions
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.length_cache import Report
from smolvlm.datasets.packing.plan import deal_to_ranks, imbalance
from smolvlm.datasets.packing.tile_use import TileUse
from smolvlm.disk.atomic_files import write_text
from smolvlm.model.vision_cache import VisionCache, closing_caches
from smolvlm.train.arguments import is_bf16_default, training_arguments
from smolvlm.train.best import best_callbacks, keep_best, stopped_early
from smolvlm.train.cache_worth import tile_use_of, worth_of_run
from smolvlm.train.callbacks import ProgressBarCallback
from smolvlm.train.checkpoint import CheckpointFiles
from smolvlm.train.context_packs import context_notes, join_context_group, repeated_for_groups
from smolvlm.train.cpu_ways import computing_as_chosen
from smolvlm.train.flops import peak_flops_of_ranks
from smolvlm.train.methods.method import method_of
from smolvlm.train.pack_shapes import pack_shapes
from smolvlm.train.plan_notes import plan_summary, start_notes
from smolvlm.train.planned_rows import plan_rows
from smolvlm.train.ranks.computed_once import computed_once
from smolvlm.train.resuming import (
    RunIdentity,
    find_checkpoint,
    resume_notes,
    resumed_from,
    resumed_rows,
    run_identity,
)
from smolvlm.train.room import check_room
from smolvlm.train.row_record import RowRecord
from smolvlm.train.run_facts import run_facts
from smolvlm.train.run_folder import check_run_folder
from smolvlm.train.run_model import RunModel, check_model, check_rows, load_run_model
from smolvlm.train.run_start import begin_run
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer
from smolvlm.train.step import StepPolicy
from smolvlm.train.stop_signal import saved_when_stopped
from smolvlm.train.trainer_parts import Evaluations, TrainerParts
from smolvlm.train.trial import try_settings

MakeEvaluations = Callable[
    [Checkpoint, PromptSettings, VisionCache | None, Path | None], Evaluations
]
"""Builds the evaluation once the model is there, told which checkpoint is resumed; eval is a
neighbour that this room does not know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunHooks:
    """What rooms that this one does not know add to a run."""

    make_evaluations: MakeEvaluations | None = None
    """Makes what evaluates before and during training, once the model is there."""
    write_card: Callable[[Path], object] = lambda _: None
    """Writes a card into a checkpoint's folder, before it is marked as whole."""


MeasuringBar = Callable[[], AbstractContextManager[Report | None]]


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class TrainedRun:
    """What `train` leaves in memory."""

    checkpoint: Checkpoint
    prompt: PromptSettings
    planned: PlannedData
    trainer: SmolVLMTrainer
    vision_cache: VisionCache | None
    was_done: bool
    """Whether it was trained to its end before."""

    def __repr__(self) -> str:
        """Say where the run is, and how far; its parts print themselves at great length."""
        folder, state = self.trainer.args.output_dir, self.trainer.state
        return f"<run in {folder}: {state.global_step} of {self.planned.plan.num_steps} steps>"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Start:
    """What is known of a run before any weight is read."""

    base: Base
    prompt: PromptSettings
    planned: PlannedData
    tile_use: TileUse
    arguments: TrainingArguments
    identity: RunIdentity
    resume: Path | None
    """The checkpoint that the run resumes from."""
    rows: RowRecord
    resume_notes: Sequence[str]
    """What is to be said of those that it does not."""
    stopped_at: int | None
    """The step of that checkpoint, where the run stopped there early."""

    @property
    def is_done(self) -> bool:
        """Whether the run was trained to its end before."""
        last = f"checkpoint-{self.planned.plan.num_steps}"
        is_last = self.resume is not None and self.resume.name == last
        return is_last or self.stopped_at is not None


def train(
    config: RunConfig,
    *,
    hooks: RunHooks | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    say: Callable[[str], None] = lambda _: None,
    measuring_bar: MeasuringBar = nullcontext,
    shows_progress: bool = False,
) -> TrainedRun:
    """Train as the settings say; resume a run whose whole checkpoint is in `output_dir`.

    Args:
        config: the settings, complete.
        hooks: what other rooms add.
        callbacks: of transformers, besides the run's own.
        say: receives the notes of the run's start.
        measuring_bar: gives what shows progress while rows are measured.
        shows_progress: whether a bar or lines on standard error tell how far training is.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to fix it.
    """
    start = _check_and_plan(config, measuring_bar)
    with computing_as_chosen(start.arguments, resume=start.resume), closing_caches():
        return _train(
            config,
            start,
            hooks=hooks or RunHooks(),
            callbacks=callbacks,
            say=say,
            shows_progress=shows_progress,
        )


def _train(
    config: RunConfig,
    start: _Start,
    *,
    hooks: RunHooks,
    callbacks: Sequence[TrainerCallback],
    say: Callable[[str], None],
    shows_progress: bool,
) -> TrainedRun:
    uses_bf16, device = bool(start.arguments.bf16), start.arguments.device
    run_model = load_run_model(
        config,
        start.base,
        uses_bf16=uses_bf16,
        repeats_tiles=start.tile_use.num_repeated > 0,
        resume=start.resume,
        device=device,
    )
    saves_adapters = run_model.adapters is not None
    check_room(run_model.checkpoint.model, start.arguments, saves_adapters=saves_adapters)
    files = CheckpointFiles(
        save_processor=partial(
            save_processor,
            config.model.path,
            media=start.prompt.media,
            new_tokens=config.model.new_tokens,
        ),
        write_card=hooks.write_card,
        identity=start.identity,
        adapters=run_model.adapters,
    )
    trainer = _build_trainer(config, start, run_model, files, hooks.make_evaluations, say)
    if trainer.is_world_process_zero():
        say("\n".join(_begin(config, start, run_model, trainer)))
    bar = [ProgressBarCallback(trainer.watch.beats)] if shows_progress else []
    for callback in (*bar, *callbacks, *best_callbacks(config, say=say)):
        trainer.add_callback(callback)
    is_asked = bool(config.train.arguments.get("enable_jit_checkpoint"))
    with saved_when_stopped(trainer, trainer.finish_checkpoint, is_asked=is_asked):
        trainer.fit(start.resume, has_stopped=start.stopped_at is not None)
    trainer.save_final()
    return TrainedRun(
        checkpoint=run_model.checkpoint,
        prompt=start.prompt,
        planned=start.planned,
        trainer=trainer,
        vision_cache=run_model.vision_cache,
        was_done=start.is_done,
    )


def _check_and_plan(config: RunConfig, measuring_bar: MeasuringBar) -> _Start:
    """Refuse what can be refused before the model loads, and find the checkpoint to resume from."""
    check_run_folder(config)
    try_settings(config)
    base = check_model(config)
    prompt = base.prompt(config.data)
    with measuring_bar() as report:
        planned = computed_once(
            lambda: plan_rows(config, prompt, report=report),
            open_tables=lambda: open_tables(config.data.mixture, config.data),
        )
    check_rows(config, num_tiles=int(planned.measured.lengths.num_tiles.sum()))
    arguments = training_arguments(config.train, num_steps=planned.plan.num_steps)
    keep_best(arguments, config.eval.best_by)
    by_default = is_bf16_default(config.train)
    rows = RowRecord.of(planned.measured, on_change=config.train.on_changed_data)
    identity = run_identity(
        config.model_dump(mode="json"), planned.plan, is_bf16_default=by_default, rows=rows
    )
    resume = find_checkpoint(
        config.train.resume_from_checkpoint, output_dir=config.train.output_dir, identity=identity
    )
    about_others = resume_notes(
        config.train.resume_from_checkpoint, output_dir=config.train.output_dir, resume=resume
    )
    if resume is not None:
        about_others += resumed_rows(rows, resume, num_steps=planned.plan.num_steps)
    if config.train.verify_data:
        rows.verify_all(rank=arguments.process_index, num_ranks=arguments.world_size)
    return _Start(
        base=base,
        prompt=prompt,
        planned=planned,
        tile_use=tile_use_of(config.train, planned),
        arguments=arguments,
        identity=identity,
        resume=resume,
        rows=rows,
        resume_notes=about_others,
        stopped_at=stopped_early(resume, config.eval) if resume is not None else None,
    )


def _build_trainer(
    config: RunConfig,
    start: _Start,
    run_model: RunModel,
    files: CheckpointFiles,
    make_evaluations: MakeEvaluations | None,
    say: Callable[[str], None],
) -> SmolVLMTrainer:
    prompt, arguments, cache = start.prompt, start.arguments, run_model.vision_cache
    context_ranks = config.train.context_ranks
    run_model.checkpoint.model.context_group = join_context_group(config.train, arguments)
    shapes = pack_shapes(config, arguments, pad_id=prompt.tokens.pad)
    order = deal_to_ranks(
        start.planned.plan,
        num_ranks=arguments.world_size // context_ranks,
        cost_per_token=run_model.cost.per_token,
        cost_per_tile=run_model.cost.per_tile,
    )
    dataset = PackDataset(
        start.planned.measured,
        start.planned.plan,
        encoder=prompt.encoder(loss_weighting=config.data.loss_weighting),
        settings=prompt.media,
        options=PackOptions(
            order=repeated_for_groups(order, context_ranks=context_ranks),
            read_features=cache.read if cache else None,
            plan_attention=shapes.plan_attention,
            reshape=shapes.reshape,
            on_bad_sample=config.data.on_bad_sample,
        ),
    )
    method = method_of(config.train.method)
    reference = method.prepare(config, run_model, dataset, prompt=prompt, arguments=arguments)
    evaluations = None
    if make_evaluations is not None:
        held_out = run_model.held_out_cache
        evaluations = make_evaluations(run_model.checkpoint, prompt, held_out, start.resume)
    parts = TrainerParts(
        learning_rates=run_model.learning_rates,
        files=files,
        step=StepPolicy(method=method, reference=reference),
        vision_cache=cache,
        could_keep_features=not config.data.vision_cache
        and not run_model.learning_rates.of_tower("vision_tower")
        and start.tile_use.num_repeated > 0,
        evaluations=evaluations,
        rows=start.rows,
        log_sample_ids=config.train.log_sample_ids,
        max_bad_fraction=config.data.max_bad_fraction,
        max_prefetch_bytes=config.data.prefetch_mb * 10**6,
        engine=config.train.engine,
        has_master_weights=config.train.master_weights,
        step_timeout_s=config.train.step_timeout_s if arguments.world_size > 1 else None,
        say=say,
    )
    return SmolVLMTrainer(run_model.checkpoint.model, arguments, train_dataset=dataset, parts=parts)


def _begin(
    config: RunConfig, start: _Start, run_model: RunModel, trainer: SmolVLMTrainer
) -> list[str]:
    """Write what the run is to its folder, and return what is to be said about it."""
    output_dir, num_ranks = Path(config.train.output_dir), start.arguments.world_size
    output_dir.mkdir(parents=True, exist_ok=True)
    if not start.is_done:
        write_text(output_dir / "run.yaml", dump_run_config(config))
    notes = start_notes(start.prompt, start.planned, warmup=start.arguments.warmup_steps)
    notes += context_notes(config.train)
    notes += [plan_summary(start.planned), trainer.check_optimizer(), *run_model.notes()]
    if run_model.held_out_cache is not None and start.tile_use.total_shown:
        peak = peak_flops_of_ranks(start.arguments) / num_ranks
        notes.append(worth_of_run(config, run_model, start.tile_use, peak_flops=peak).line())
    facts = run_facts(config, start.arguments, run_model.checkpoint.model)
    is_open = "bf16" not in config.train.arguments
    if start.is_done:
        notes.append(facts.line())
    else:
        notes += begin_run(
            output_dir,
            facts,
            resume=start.resume,
            is_precision_open=is_open,
            sources=start.planned.counts,
        )
    if (num_groups := num_ranks // config.train.context_ranks) > 1:
        costs = (run_model.cost.per_token, run_model.cost.per_tile)
        order = trainer.train_dataset.order[:: config.train.context_ranks]
        waiting = imbalance(start.planned.plan, order, num_ranks=num_groups, costs=costs)
        who = "ranks" if num_groups == num_ranks else "groups of ranks"
        notes.append(f"{num_groups} {who} wait {waiting:.1%} of the time, by estimated cost")
    steps, stopped_at, is_done = start.planned.plan.num_steps, start.stopped_at, start.is_done
    words = resumed_from(start.resume, num_steps=steps, is_done=is_done, stopped_at=stopped_at)
    return [*notes, *start.resume_notes, *words]
