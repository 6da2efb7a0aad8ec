"""A run planned before it is paid for: its rows measured and kept, its model never loaded."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import cast

from smolvlm.build.configs import PublishedSize, published_config
from smolvlm.checkpoints.base import Base
from smolvlm.config.load import config_from
from smolvlm.config.schema import RunConfig, TrainConfig
from smolvlm.datasets.builder import PlannedData, plan_data
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.length_cache import Report
from smolvlm.plan.calibration import machine
from smolvlm.plan.devices import Device, named_device
from smolvlm.plan.fake_run import PlannedModel
from smolvlm.plan.pack_shape import shape_of_conversations
from smolvlm.plan.run_plan import RunPlan, Surroundings, plan_of
from smolvlm.plan.workload import Workload, synthetic_workload, workload_of
from smolvlm.protocols import VisionLanguageConfig
from smolvlm.runs.model import Say, nothing, with_model
from smolvlm.train.arguments import planned_length, seed_of, trains_in_bf16
from smolvlm.train.flops import ComputeCost
from smolvlm.train.planned_rows import plan_run
from smolvlm.train.run_model import check_model

MeasuringBar = Callable[[], AbstractContextManager[Report | None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a run is planned for."""

    device: str | None = None
    """A name of `plan/devices.py`; None is this machine."""
    calibrates: bool = False
    """Measure this machine anew."""
    watts: float | None = None
    """What a device draws; None is the named device's."""
    num_ranks: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Planner:
    """One run's rows and model, read once and planned as often as asked."""

    config: RunConfig
    base: Base
    prompt: PromptSettings
    planned: PlannedData
    around: Surroundings

    @property
    def model(self) -> PlannedModel:
        return PlannedModel.of(self.base)

    def workload(self, config: RunConfig, cost: ComputeCost) -> Workload:
        """Return the packs under other settings than the run's own; rows are as they were
        measured."""
        planned = self.planned
        if config.data != self.config.data or config.train != self.config.train:
            num_epochs, max_steps = planned_length(config.train)
            planned = plan_data(
                planned.measured,
                config.data,
                packs_per_step=config.train.packs_per_step,
                seed=seed_of(config.train),
                num_epochs=num_epochs,
                max_steps=max_steps,
            )
        return workload_of(config, self.prompt, planned, cost)

    def plan(self, config: RunConfig | None = None, *, compares: bool = True) -> RunPlan:
        """Return what the run will be, or one with other settings.

        Args:
            config: other settings; the model, the mixture and how it is cut are the run's.
            compares: whether memory and time are planned for every choice of activation
                checkpointing.
        """
        settings = config or self.config
        uses_bf16 = computes_in_bf16(settings.train, self.around.device)
        return plan_of(
            settings,
            PlannedModel.of(self.base),
            lambda cost: self.workload(settings, cost),
            replace(self.around, uses_bf16=uses_bf16),
            compares=compares,
        )


def planner_of(
    config: RunConfig,
    place: Place | None = None,
    *,
    say: Say = nothing,
    measuring_bar: MeasuringBar = nullcontext,
) -> Planner:
    """Read a run's rows and its model's small files; measure this machine where it is planned for.

    Args:
        config: the settings.
        place: where it is to run; None is this machine.
        say: receives a note before anything that takes a while.
        measuring_bar: gives what shows progress while rows are measured.

    Raises:
        ConfigError, SampleError: what is wrong, where, and how to fix it.
    """
    place = place or Place()
    config = with_model(config, say=say)
    around = surroundings(place, config.train, say=say)
    base = check_model(config)
    with measuring_bar() as report:
        prompt, planned = plan_run(config, base, report=report)
    return Planner(config=config, base=base, prompt=prompt, planned=planned, around=around)


def surroundings(place: Place, train: TrainConfig, *, say: Say = nothing) -> Surroundings:
    """Return where a run is planned for; measure this machine where it is that.

    Raises:
        ConfigError: no device of this name is known.
    """
    if place.device is not None:
        device, program_bytes = named_device(place.device), 0
    else:
        measured = machine(anew=place.calibrates, say=say)
        device, program_bytes = measured.device, measured.program_bytes
    return Surroundings(
        device=device,
        uses_bf16=computes_in_bf16(train, device),
        program_bytes=program_bytes,
        watts=place.watts,
        num_ranks=place.num_ranks,
    )


def computes_in_bf16(train: TrainConfig, device: Device) -> bool:
    """Return whether a run computes in bfloat16 on a device: as written, else as it would by
    default."""
    if device.is_cpu:
        return trains_in_bf16(train)
    arguments = train.arguments
    if "bf16" in arguments:
        return bool(arguments["bf16"])
    return device.has_bf16 and not any(arguments.get(name) for name in ("fp16", "deepspeed"))


STAGE_TOKENS, STAGE_FRAMES, STAGE_PACKS = 8192, 64, 512
"""What is published of SmolVLM2's video stage: tokens of a sequence, frames of a clip, sequences of
a step."""
STAGE_LEARNED = STAGE_TOKENS // 8
"""Learned tokens of a sequence: an assumption."""


def plan_video_stage(
    size: PublishedSize, place: Place | None = None, *, say: Say = nothing
) -> RunPlan:
    """Plan a step of the published video stage, of no rows: every sequence is full and shows a clip
    of as many frames as it may.

    Args:
        size: of the published model; all of it trains, in bfloat16 where the device has it, with
            activation checkpointing.
        place: where it is to run; None is this machine.
        say: receives a note before this machine is measured.
    """
    config = config_from(
        {
            "model": {"path": f"HuggingFaceTB/SmolVLM2-{size}-Instruct"},
            "data": {"mixture": [], "max_tokens_per_pack": STAGE_TOKENS},
            "train": {
                "output_dir": "runs/video_stage",
                "vision_tower_lr": 1e-5,
                "packs_per_step": STAGE_PACKS,
                "activation_checkpointing": True,
            },
        },
        [],
        where="the video stage",
    )
    shape = shape_of_conversations(
        1, tokens=STAGE_TOKENS, tiles=STAGE_FRAMES, targets=STAGE_LEARNED
    )
    workload = synthetic_workload(shape, num_packs=STAGE_PACKS, packs_per_step=STAGE_PACKS)
    model = PlannedModel(config=cast("VisionLanguageConfig", published_config(size)))
    around = surroundings(place or Place(), config.train, say=say)
    return plan_of(config, model, lambda _: workload, around, compares=False)
