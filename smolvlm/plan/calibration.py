"""This machine's rates: measured once within a minute, and kept.

In: nothing. Out: a `Device`. What is measured is CPU time, so that a busy machine does not decide;
sizes are those of the family's layers. The file, `machine.json` in the folder that `$SMOLVLM_HOME`
names, is made anew for another processor, torch or number of threads. (`build/calibration.py` is
something else: it sets a cut-off tower's last norm.)
"""

import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from smolvlm.disk.atomic_files import write_text
from smolvlm.home import cache_dir
from smolvlm.plan.devices import Device, Rates
from smolvlm.train.run_facts import cpu_name

FILE = "machine.json"
_PRODUCTS = ((1024, 576, 1536), (1024, 1536, 576), (2048, 768, 3072), (2048, 3072, 768))
"""Rows, inputs and outputs of the products that are measured."""
_ATTENTIONS = ((2, 12, 1024, 64, False), (1, 9, 1024, 64, True))
"""Batch, heads, tokens, width, whether causal: a tower's, and a language model's."""
_SHAPE = (1024, 3072)
"""Of the tensors that other operations are measured on: 12.6 MB in float32."""
_ROUNDS = 3
_PRINT_RESIDENT = """
import smolvlm.train.train, smolvlm.eval.evaluate, smolvlm.report.report
from smolvlm.plan.resident import resident_bytes
import sys
sys.stdout.write(str(resident_bytes()))
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """This machine as it was measured."""

    device: Device
    program_bytes: int
    """Resident in a process that has imported what trains, and nothing more."""
    measured_at: float
    """Seconds since 1970."""


def machine(*, anew: bool = False) -> Machine:
    """Return this machine, measured where it was not before.

    Args:
        anew: measure in any case.
    """
    path = cache_dir() / FILE
    kept = None if anew else _kept(path)
    if kept is not None:
        return kept
    measured = _measured()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"key": _key(), **_as_json(measured)}, indent=1))
    return measured


def _key() -> list[object]:
    return [cpu_name(), platform.machine(), torch.__version__, torch.get_num_threads()]


def _kept(path: Path) -> Machine | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict) or content.get("key") != _key():
        return None
    return _from_json(content)


def _as_json(measured: Machine) -> dict[str, Any]:
    device = measured.device
    return {
        "rates": {str(dtype): asdict(rates) for dtype, rates in device.rates.items()},
        "optimizer_bytes": device.optimizer_bytes,
        "fresh_bytes": device.fresh_bytes,
        "operation_s": device.operation_s,
        "program_bytes": measured.program_bytes,
        "measured_at": measured.measured_at,
    }


def _from_json(content: dict[str, Any]) -> Machine | None:
    try:
        rates = {
            getattr(torch, name.removeprefix("torch.")): Rates(**values)
            for name, values in content["rates"].items()
        }
        device = _device(
            rates,
            optimizer_bytes=content["optimizer_bytes"],
            fresh_bytes=content["fresh_bytes"],
            operation_s=content["operation_s"],
        )
        program_bytes, measured_at = content["program_bytes"], content["measured_at"]
    except (AttributeError, KeyError, TypeError):
        return None
    return Machine(device=device, program_bytes=program_bytes, measured_at=measured_at)


def _device(
    rates: dict[torch.dtype, Rates],
    *,
    optimizer_bytes: float,
    fresh_bytes: float,
    operation_s: float,
) -> Device:
    return Device(
        name=cpu_name(),
        rates=rates,
        optimizer_bytes=optimizer_bytes,
        fresh_bytes=fresh_bytes,
        operation_s=operation_s,
        is_overlapped=False,
        memory_bytes=None,
        watts=None,
        threads=torch.get_num_threads(),
    )


def _measured() -> Machine:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rates = {dtype: _rates(dtype) for dtype in (torch.float32, torch.bfloat16)}
        optimizer, fresh, operation = _optimizer(), _fresh(), _operation()
    finally:
        torch.set_num_threads(threads)
    device = _device(rates, optimizer_bytes=optimizer, fresh_bytes=fresh, operation_s=operation)
    return Machine(device=device, program_bytes=_program_bytes(), measured_at=time.time())


def _program_bytes() -> int:
    result = subprocess.run(
        [sys.executable, "-c", _PRINT_RESIDENT], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


def _cpu_s(work: Callable[[], object]) -> float:
    """Return the CPU time of some work: the median of a few rounds, after one to warm up."""
    work()
    times: list[float] = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return max(statistics.median(times), 1e-9)


def _random(*shape: int, dtype: torch.dtype, needs_gradient: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(shape, generator=generator).to(dtype)
    return values.requires_grad_(needs_gradient)


def _rates(dtype: torch.dtype) -> Rates:
    forward, backward = _attention_rates(dtype)
    values = _random(*_SHAPE, dtype=dtype)
    size = values.numel() * values.element_size()
    weight = torch.ones(_SHAPE[1], dtype=dtype)
    aten: Any = torch.ops.aten
    gelu = _bytes_a_second(
        (2 * size, lambda: functional.gelu(values, approximate="tanh")),
        (3 * size, lambda: aten.gelu_backward(values, values, approximate="tanh")),
    )
    special = _bytes_a_second(
        (2 * size, lambda: functional.silu(values)),
        (3 * size, lambda: aten.silu_backward(values, values)),
        (2 * size, lambda: functional.layer_norm(values, _SHAPE[1:], weight, weight)),
        (2 * size, lambda: torch.log_softmax(values, -1)),
    )
    plain = _bytes_a_second(
        (3 * size, lambda: values + values),
        (3 * size, lambda: values * values),
        (2 * size, lambda: values.clone()),
        (size, lambda: values.sum(0)),
        (4 * size, lambda: torch.cat([values, values])),
    )
    return Rates(
        product_flops=_product_rate(dtype),
        attention_flops=forward,
        attention_backward_flops=backward,
        gelu_bytes=gelu,
        special_bytes=special,
        unpack_bytes=_unpack_rate(plain),
        plain_bytes=plain,
    )


def _bytes_a_second(*work: tuple[float, Callable[[], object]]) -> float:
    return sum(size for size, _ in work) / sum(_cpu_s(run) for _, run in work)


def _product_rate(dtype: torch.dtype) -> float:
    flops = seconds = 0.0
    for rows, inputs, outputs in _PRODUCTS:
        left, weight, gradient = (
            _random(*shape, dtype=dtype)
            for shape in ((rows, inputs), (outputs, inputs), (rows, outputs))
        )
        seconds += _cpu_s(lambda: left @ weight.T)  # noqa: B023 - called at once
        seconds += _cpu_s(lambda: gradient @ weight)  # noqa: B023
        seconds += _cpu_s(lambda: gradient.T @ left)  # noqa: B023
        flops += 3 * 2.0 * rows * inputs * outputs
    return flops / seconds


def _attention_rates(dtype: torch.dtype) -> tuple[float, float]:
    """Return FLOPs a second of attention and of its backward, counted as `trace.py` does."""
    flops = forward = backward = 0.0
    for batch, heads, tokens, width, is_causal in _ATTENTIONS:
        states = _random(batch, heads, tokens, width, dtype=dtype, needs_gradient=True)

        def attend() -> Tensor:
            return functional.scaled_dot_product_attention(
                states,  # noqa: B023 - called at once
                states,  # noqa: B023
                states,  # noqa: B023
                is_causal=is_causal,  # noqa: B023
            )

        output = attend()
        gradient = torch.ones_like(output)
        forward += _cpu_s(attend)
        backward += _cpu_s(
            lambda: torch.autograd.grad(output, states, gradient, retain_graph=True)  # noqa: B023
        )
        flops += 4.0 * batch * heads * tokens**2 * width / (2 if is_causal else 1)
    return flops / forward, 2.5 * flops / backward


def _unpack_rate(otherwise: float) -> float:
    """Return bytes a second, read and written, of weights restored from 4 bits.

    Args:
        otherwise: what is taken where bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return otherwise
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight = _random(1024, 1536, dtype=torch.float32)
    packed, state = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    size = weight.numel() * weight.element_size() + packed.numel()
    return _bytes_a_second((size, lambda: dequantize_4bit(packed, state)))


def _optimizer() -> float:
    """Return bytes a second of AdamW's step: four values read and three written a parameter."""
    parameter = torch.zeros(4_000_000, requires_grad=True)
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW([parameter], fused=True)
    return 28.0 * parameter.numel() / _cpu_s(optimizer.step)


def _fresh() -> float:
    """Return bytes a second at which new pages are mapped and first written."""
    values = torch.zeros(16_000_000, dtype=torch.float32)
    old = torch.empty_like(values)
    mapped = _cpu_s(lambda: values.clone())
    return 4.0 * values.numel() / max(mapped - _cpu_s(lambda: old.copy_(values)), 1e-9)


def _operation() -> float:
    """Return what an operation costs by itself: forward and backward, on next to nothing."""
    values = torch.ones(8, requires_grad=True)

    def chain() -> None:
        result = values
        for _ in range(500):
            result = result * 1.0
        result.sum().backward()

    return _cpu_s(chain) / 1000
