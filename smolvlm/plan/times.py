"""How long a step takes, from its operations and a device's rates.

    seconds = sum over kinds of FLOPs or bytes / rate + fresh pages + operations x overhead

In: a trace. Out: seconds of one thread's CPU time, or of a GPU. On a CPU an operation's own cost
comes on top; on a GPU operations are launched ahead, and what is longer decides.
"""

from smolvlm.plan.devices import Device
from smolvlm.plan.trace import Operations, Trace

OPTIMIZER_BYTES_A_PARAMETER = 40
"""AdamW in float32 reads four values and writes three; clipping reads the gradient twice and writes
it once."""


def pass_seconds(trace: Trace, device: Device) -> float:
    """Return what forward and backward of a pack take: CPU seconds of a CPU, seconds of a GPU."""
    return operations_seconds(trace.operations, device)


def operations_seconds(operations: Operations, device: Device) -> float:
    """Return what some operations take."""
    computing = fresh = 0.0
    count = 0
    for (kind, dtype), totals in operations.items():
        flops = totals.flops if device.is_overlapped else totals.computed
        amount = flops or totals.num_bytes
        computing += amount / device.rates_for(dtype).of(kind)
        fresh += totals.fresh_bytes
        count += totals.count
    overhead = count * device.operation_s
    if device.is_overlapped:
        return max(computing, overhead)
    assert device.fresh_bytes is not None
    return computing + overhead + fresh / device.fresh_bytes


def optimizer_seconds(num_trained: int, device: Device) -> float:
    """Return what the optimizer's step takes, clipping among it."""
    return num_trained * OPTIMIZER_BYTES_A_PARAMETER / device.optimizer_bytes


def mapping_seconds(num_bytes: float, device: Device) -> float:
    """Return what mapping and writing so many new bytes takes on a CPU; nothing on a GPU."""
    return 0.0 if device.fresh_bytes is None else num_bytes / device.fresh_bytes
