"""The most memory that a run takes, by part.

In: traces of its largest packs, and what its parameters take. Out: a `MemoryPlan`. What is alive is
exact, since it is what the step's operations take and free; on a CPU the process holds more: the
program itself, the file of weights that quantised layers were made from, and what the C library's
heap keeps of freed blocks. These three are measured or estimated, and are lines of their own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from smolvlm.model.packed_tower import can_pack
from smolvlm.model.vision import tower_modules
from smolvlm.plan.devices import CONTEXT_BYTES, Device
from smolvlm.plan.fake_run import FakeRun
from smolvlm.plan.parameters import part_sizes, restored_bytes, small_state_bytes, total
from smolvlm.plan.trace import Trace

HOLES = 0.3
"""Freed blocks that stay resident on a CPU, as a share of the most that is alive in blocks of up to
32 MiB: eight runs had -0.03 to 0.6 (docs/results.md)."""
AFTER_IMPORTS_BYTES = 100 * 10**6
"""What a process takes between its imports and its first step: trainer, decoders, buffers of the
libraries that multiply."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """Bytes of each part when most is in use."""

    program: int
    """Of a CPU the process with all that it imports; of a GPU the context and its libraries."""
    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    cache: int
    """The pack itself: ids, tiles, and features from the vision cache."""
    loading: int
    """What stays mapped of the file that quantised layers were made from; given back when memory is
    short."""
    holes: int
    """What is free and stays resident."""

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))

    @property
    def model(self) -> int:
        """Weights, gradients and the optimizer's state."""
        return self.weights + self.gradients + self.optimizer


def plan_memory(
    run: FakeRun,
    traces: Sequence[Trace],
    *,
    optimizer: str,
    device: Device,
    program_bytes: int,
) -> MemoryPlan:
    """Return the most that a run takes.

    Args:
        run: over fake tensors.
        traces: of its largest packs, as a later step sees them.
        optimizer: as `train.optim` names it.
        device: that it trains on.
        program_bytes: of a CPU: what a process takes that has imported what trains.
    """
    state = total(part_sizes(run.model, optimizer=optimizer).values()).optimizer_bytes
    highest = max(traces, key=lambda trace: trace.peak_bytes)
    peak, is_cpu = highest.peak, device.is_cpu
    small = small_state_bytes(run.model, optimizer=optimizer)
    holes = _holes(traces, highest, small_state=small) if is_cpu else 0
    return MemoryPlan(
        program=program_bytes + AFTER_IMPORTS_BYTES if is_cpu else CONTEXT_BYTES,
        weights=peak.get("weights", 0) + (_packed_bytes(run) if is_cpu else 0),
        gradients=peak.get("gradients", 0),
        optimizer=state,
        activations=peak.get("activations", 0),
        logits=peak.get("logits", 0),
        cache=peak.get("inputs", 0),
        loading=restored_bytes(run.model) if is_cpu else 0,
        holes=holes,
    )


def _packed_bytes(run: FakeRun) -> int:
    """Return what the copy of a frozen tower's layers takes (`model/packed_tower.py`)."""
    dtype = torch.bfloat16 if run.uses_bf16 else run.model.dtype
    tower, _ = tower_modules(run.model)
    if not run.is_tower_frozen or not can_pack(tower, dtype):
        return 0
    layers = tower.get_submodule("encoder").parameters()
    return sum(parameter.numel() for parameter in layers if parameter.ndim > 1) * dtype.itemsize


def _holes(traces: Sequence[Trace], highest: Trace, *, small_state: int) -> int:
    """Return what is free and stays resident where most is in use.

    The heap has been as large as any pack made it, and does not shrink; large blocks are counted as
    they are where most of them are alive.
    """
    heap = max(trace.small_bytes for trace in traces)
    large = max(trace.large_bytes for trace in traces)
    alive = highest.peak_bytes - highest.peak.get("weights", 0)
    return int(max(heap + large - alive, 0) + HOLES * (heap + small_state))
