"""A run as it will be: parameters, steps, FLOPs, memory, time, energy, before a weight is read.

In: a run's settings, its model's small files, its planned rows, and a device. Out: a `RunPlan`.
(`datasets/packing/plan.py` plans packs; what is planned here is what they cost.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from transformers import TrainingArguments

from smolvlm.config.checkpointing import Checkpointing
from smolvlm.config.method import DpoMethod
from smolvlm.config.schema import RunConfig
from smolvlm.model.feature_timing import DiskTimes
from smolvlm.plan.checkpointing import OtherCheckpointing, other_choices, with_checkpointing
from smolvlm.plan.devices import Device
from smolvlm.plan.fake_run import FakeRun, PlannedModel, fake_run
from smolvlm.plan.memory import MemoryPlan, plan_memory
from smolvlm.plan.pack_shape import shape_of_conversations
from smolvlm.plan.parameters import (
    ModelPart,
    ModelShares,
    PartSize,
    model_shares,
    part_sizes,
    total,
)
from smolvlm.plan.times import mapping_seconds, optimizer_seconds, pass_seconds
from smolvlm.plan.trace import Trace
from smolvlm.plan.workload import Workload
from smolvlm.train.cache_worth import CacheWorth
from smolvlm.train.flops import ComputeCost, compute_cost

WorkloadFor = Callable[[ComputeCost], Workload]

DISK_BYTES = 1e9
"""What a disk reads and writes in a second, assumed of the vision cache's; a run measures its."""
_JOULES_PER_KWH = 3.6e6
_EMPTY = shape_of_conversations(1, tokens=2, targets=1)
"""What any pack takes, however little is in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TimePlan:
    """Seconds; of a CPU its threads' CPU time shared out evenly."""

    before_s: float
    """Before the first step: the reference's judgement of preference rows."""
    first_step_s: float
    """A step of the first epoch, the mean."""
    later_step_s: float
    """A step of the epochs after it, which find a frozen tower's features kept; the same without
    a vision cache."""
    optimizer_s: float
    """Of each of these: the optimizer's."""
    state_s: float
    """Of the first step besides: the pages of the optimizer's state are mapped; 0 of a GPU."""
    total_s: float
    cpu_s: float | None
    """CPU time of a whole step of the first epoch, all threads together; None of a GPU."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunPlan:
    """What a run will be."""

    config: RunConfig
    """The settings that it was planned for."""
    device: Device
    uses_bf16: bool
    parts: Mapping[ModelPart, PartSize]
    workload: Workload
    flops: float
    """Of all steps: products of matrices and attention, what is computed again among them."""
    memory: MemoryPlan
    checkpointing: Checkpointing
    others: tuple[OtherCheckpointing, ...]
    """The same with other towers' activations computed again; empty where nobody asked."""
    time: TimePlan
    pass_s: Float64[np.ndarray, " pack"]
    """Forward and backward of each pack on one device; of a CPU one thread's CPU time."""
    empty_pass_s: float
    """The same of a pack of next to nothing: operations started, gradients of weights written."""
    optimizer_s: float
    """The same of the optimizer's step."""
    shares: ModelShares
    watts: float | None
    vision_cache: CacheWorth | None = None
    """None where nothing is kept: the tower trains, or no row shows a tile."""

    @property
    def size(self) -> PartSize:
        return total(self.parts.values())

    @property
    def energy_kwh(self) -> float | None:
        return None if self.watts is None else self.time.total_s * self.watts / _JOULES_PER_KWH


def optimizer_of(config: RunConfig) -> str:
    """Return the optimizer's name, as `train.optim` says or transformers does."""
    default = TrainingArguments.__dataclass_fields__["optim"].default
    name = config.train.arguments.get("optim") or default
    return str(getattr(name, "value", name))


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What a run meets where it runs."""

    device: Device
    uses_bf16: bool
    program_bytes: int = 0
    """Of a CPU: what a process takes that has imported what trains."""
    watts: float | None = None
    num_ranks: int = 1


def plan_of(
    config: RunConfig,
    planned: PlannedModel,
    workload_for: WorkloadFor,
    around: Surroundings,
    *,
    compares: bool = True,
) -> RunPlan:
    """Return what a run will be.

    Args:
        config: the settings.
        planned: its model.
        workload_for: gives its packs, once the cost of a token and of a tile is known.
        around: where it runs.
        compares: whether memory and time are planned for every choice of activation checkpointing.

    Raises:
        ConfigError: the settings do not fit the model.
    """
    uses_bf16 = around.uses_bf16
    with fake_run(config, planned, uses_bf16=uses_bf16) as run:
        workload = workload_for(compute_cost(run.model))
        parts = part_sizes(run.model, optimizer=optimizer_of(config))
        memory = _memory(run, workload, around)
        passes = _passes(run, workload, around.device, size=total(parts.values()))
        shares = model_shares(
            run.model, tokens=workload.shapes[workload.typical[0]].num_tokens, uses_bf16=uses_bf16
        )
        vision_cache = _vision_cache(run, workload, around.device)
    others = []
    for choice in other_choices(config) if compares else ():
        changed = with_checkpointing(config, choice)
        with fake_run(changed, planned, uses_bf16=uses_bf16) as run:
            others.append(_other(run, workload, around, size=total(parts.values())))
    watts = around.watts if around.watts is not None else around.device.watts
    return RunPlan(
        config=config,
        device=around.device,
        uses_bf16=uses_bf16,
        parts=parts,
        workload=workload,
        flops=passes.flops,
        memory=memory,
        checkpointing=config.train.activation_checkpointing,
        others=tuple(others),
        time=_time(passes, workload, around),
        pass_s=passes.seconds,
        empty_pass_s=passes.empty_s,
        optimizer_s=passes.optimizer_s,
        shares=shares,
        watts=None if watts is None else watts * around.num_ranks,
        vision_cache=vision_cache,
    )


def _vision_cache(run: FakeRun, workload: Workload, device: Device) -> CacheWorth | None:
    """Return what keeping a frozen tower's features takes and saves."""
    use, data = workload.tile_use, run.config.data
    if not run.keeps_features or use is None or not use.total_shown:
        return None
    rows, width, dtype = run.cached_tile()
    feature_bytes = rows * width * dtype.itemsize
    pace = _pace(run, workload, device, is_cached=False)
    share = device.threads if device.is_cpu else 1
    seconds = feature_bytes / DISK_BYTES
    return CacheWorth(
        use=use,
        feature_bytes=feature_bytes,
        compute_s=pace.seconds * compute_cost(run.model).per_tile / share,
        disk=DiskTimes(write_s=seconds, read_s=seconds),
        max_bytes=None if data.vision_cache_max_gb is None else int(data.vision_cache_max_gb * 1e9),
        is_asked_for=data.vision_cache_dir is not None,
    )


def _other(
    run: FakeRun, workload: Workload, around: Surroundings, *, size: PartSize
) -> OtherCheckpointing:
    passes = _passes(run, workload, around.device, size=size)
    return OtherCheckpointing(
        checkpointing=run.config.train.activation_checkpointing,
        memory=_memory(run, workload, around),
        total_s=_time(passes, workload, around).total_s,
    )


def _memory(run: FakeRun, workload: Workload, around: Surroundings) -> MemoryPlan:
    accumulates = workload.packs_per_step // around.num_ranks > 1
    traces = [
        run.trace(workload.shapes[number], accumulates=accumulates) for number in workload.largest
    ]
    return plan_memory(
        run,
        traces,
        optimizer=optimizer_of(run.config),
        device=around.device,
        program_bytes=around.program_bytes,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pace:
    """What a unit of estimated cost takes, by the packs that were looked at."""

    seconds: float
    flops: float


def _pace(
    run: FakeRun, workload: Workload, device: Device, *, is_cached: bool, learns: bool = True
) -> _Pace:
    costs = workload.costs(compute_cost(run.model), computes_tiles=not is_cached)
    traces: list[Trace] = [
        run.trace(workload.shapes[number], is_cached=is_cached, learns=learns)
        for number in workload.typical
    ]
    estimated = sum(costs[number] for number in workload.typical) or 1.0
    return _Pace(
        seconds=sum(pass_seconds(trace, device) for trace in traces) / estimated,
        flops=sum(trace.flops for trace in traces) / estimated,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Passes:
    """All forward and backward passes of a run, on one device."""

    seconds: Float64[np.ndarray, " pack"]
    empty_s: float
    """Of a pack of next to nothing."""
    optimizer_s: float
    """Of a step."""
    state_s: float
    """Of the first step."""
    judged: "_Judged"
    flops: float


def _passes(run: FakeRun, workload: Workload, device: Device, *, size: PartSize) -> _Passes:
    cost = compute_cost(run.model)
    first = _pace(run, workload, device, is_cached=False)
    judged = _judged(run, workload, device)
    later = _pace(run, workload, device, is_cached=True) if run.keeps_features else first
    is_first = np.arange(len(workload.num_tokens)) < workload.first_epoch_packs
    is_computed = is_first & (not judged.fills_cache)
    fresh = workload.costs(cost) * is_computed
    kept = workload.costs(cost, computes_tiles=not run.keeps_features) * ~is_computed
    return _Passes(
        seconds=fresh * first.seconds + kept * later.seconds,
        empty_s=pass_seconds(run.trace(_EMPTY), device),
        optimizer_s=optimizer_seconds(size.num_trained, device),
        state_s=mapping_seconds(size.optimizer_bytes, device),
        judged=judged,
        flops=float((fresh * first.flops + kept * later.flops).sum()) + judged.flops,
    )


def _time(passes: _Passes, workload: Workload, around: Surroundings) -> TimePlan:
    device, ranks = around.device, around.num_ranks
    share = device.threads if device.is_cpu else 1
    per_step = passes.seconds.reshape(-1, workload.packs_per_step).sum(axis=1)
    num_first = workload.first_epoch_packs // workload.packs_per_step
    first = float(per_step[:num_first].mean()) if num_first and len(per_step) else 0.0
    later = float(per_step[num_first:].mean()) if num_first < len(per_step) else first
    own = passes.optimizer_s
    before_s = passes.judged.seconds / share / ranks
    steps_s = float(per_step.sum()) / ranks + own * workload.num_steps + passes.state_s
    return TimePlan(
        before_s=before_s,
        first_step_s=(first / ranks + own) / share,
        later_step_s=(later / ranks + own) / share,
        optimizer_s=own / share,
        state_s=passes.state_s / share,
        total_s=before_s + steps_s / share,
        cpu_s=first + own if device.is_cpu else None,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Judged:
    """The reference's pass over all rows before the first step."""

    seconds: float = 0.0
    flops: float = 0.0
    fills_cache: bool = False


def _judged(run: FakeRun, workload: Workload, device: Device) -> _Judged:
    method = run.config.train.method
    if not isinstance(method, DpoMethod) or not method.needs_reference:
        return _Judged()
    if method.reference != "precomputed":
        return _Judged()
    pace = _pace(run, workload, device, is_cached=False, learns=False)
    cost = workload.costs(compute_cost(run.model))[: workload.first_epoch_packs].sum()
    return _Judged(
        seconds=float(cost * pace.seconds),
        flops=float(cost * pace.flops),
        fills_cache=run.keeps_features and method.reference_model is None,
    )
