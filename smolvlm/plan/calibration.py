"""This machine's rates: measured once within a minute, and kept.

In: nothing. Out: a `Device`. What is measured is CPU time, so that a busy machine does not decide;
sizes are those of the family's layers, and operands are taken in turn, since a step's do not lie in
the processor's caches. The file, `machine.json` in the folder that `$SMOLVLM_HOME`
names, is made anew for another processor, torch or number of threads. (`build/calibration.py` is
something else: it sets a cut-off tower's last norm.)
"""

import importlib.util
import json
import mmap
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from smolvlm.disk.atomic_files import write_text
from smolvlm.home import cache_dir
from smolvlm.model.attention.dense import attend as dense_attention
from smolvlm.model.cpu_choices import using_choices
from smolvlm.model.onednn import onednn_products
from smolvlm.plan.devices import Device, Rates
from smolvlm.plan.times import OPTIMIZER_BYTES_A_PARAMETER
from smolvlm.plan.trace import BACKWARD_FLOPS, attention_flops
from smolvlm.train.cpu_ways import machine_choices
from smolvlm.train.run_facts import cpu_name

FILE = "machine.json"
DAY_S = 86_400
_METHOD = 3
"""Counts the ways in which a machine was measured so far; what another way measured is not kept."""
_PRODUCTS = ((1024, 576, 1536), (1024, 1536, 576), (1024, 768, 3072), (1024, 3072, 768))
"""Rows, inputs and outputs of the products that are measured."""
_ATTENTIONS = ((2, 12, 1024, 64, False), (1, 9, 1024, 64, True))
"""Batch, heads, tokens, width, whether causal: a tower's, and a language model's."""
_SHAPE = (1024, 3072)
"""Of the tensors that other operations are measured on: 12.6 MB in float32."""
_TURNS = 24
"""Operands of each kind, taken in turn: some 300 MB. On a processor that keeps them in its caches
sums of tensors are twice as fast as in a step, and products by a tenth."""
_ATTENTION_TURNS = 4  # it computes far more for each byte
_WARM_UP_TURNS = 2
_FEWEST_TURNS = 3
_ENOUGH_S = 0.5
"""No further turn is begun after so much CPU time."""
_STATE_PARAMETERS = 32_000_000
_FRESH_BYTES = 64 * 10**6
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


def machine(*, anew: bool = False, say: Callable[[str], None] = lambda _: None) -> Machine:
    """Return this machine, measured where it was not before.

    Args:
        anew: measure in any case.
        say: receives a note where it is measured now, or was more than a day ago.
    """
    path = cache_dir() / FILE
    kept = None if anew else _kept(path)
    if kept is not None:
        days = int((time.time() - (kept.device.measured_at or 0.0)) // DAY_S)
        if days:
            ago = "a day" if days == 1 else f"{days:,} days"
            say(f"this machine's speed was measured {ago} ago; --calibrate measures it anew")
        return kept
    say("measuring this machine's speed, which is kept: about a minute")
    measured = _measured()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"key": _key(), **_as_json(measured)}, indent=1))
    return measured


def _key() -> list[object]:
    return [_METHOD, cpu_name(), platform.machine(), torch.__version__, torch.get_num_threads()]


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
        "measured_at": device.measured_at,
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
            measured_at=float(content["measured_at"]),
        )
        program_bytes = content["program_bytes"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return Machine(device=device, program_bytes=program_bytes)


def _device(
    rates: dict[torch.dtype, Rates],
    *,
    optimizer_bytes: float,
    fresh_bytes: float,
    operation_s: float,
    measured_at: float,
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
        measured_at=measured_at,
    )


def _measured() -> Machine:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with using_choices(machine_choices()), onednn_products("cpu"):  # as a run would compute
            rates = {dtype: _rates(dtype) for dtype in (torch.float32, torch.bfloat16)}
        optimizer, fresh, operation = _optimizer(), _fresh(), _operation()
    finally:
        torch.set_num_threads(threads)
    device = _device(
        rates,
        optimizer_bytes=optimizer,
        fresh_bytes=fresh,
        operation_s=operation,
        measured_at=time.time(),
    )
    return Machine(device=device, program_bytes=_program_bytes())


def _program_bytes() -> int:
    result = subprocess.run(
        [sys.executable, "-c", _PRINT_RESIDENT], capture_output=True, text=True, check=True
    )
    return int(result.stdout)


def _cpu_s(work: Callable[[int], object], *, turns: int = 0) -> float:
    """Return the CPU time of some work: the median over its operands, after a few to warm up.

    Args:
        work: receives the number of the operand that it takes.
        turns: how many operands there are; 0 is `_TURNS`.
    """
    for turn in range(_WARM_UP_TURNS):
        work(turn)
    times: list[float] = []
    for turn in range(turns or _TURNS):
        began = time.process_time()
        work(turn)
        times.append(time.process_time() - began)
        if len(times) >= _FEWEST_TURNS and sum(times) > _ENOUGH_S:
            break
    return max(statistics.median(times), 1e-9)


def _operands(*shape: int, dtype: torch.dtype) -> list[Tensor]:
    first = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return [first, *(first.clone() for _ in range(_TURNS - 1))]


def _rates(dtype: torch.dtype) -> Rates:
    forward, backward = _attention_rates(dtype)
    values = _operands(*_SHAPE, dtype=dtype)
    others = [*values[1:], values[0]]
    size = values[0].numel() * values[0].element_size()
    weight = torch.ones(_SHAPE[1], dtype=dtype)
    aten: Any = torch.ops.aten
    gelu = _bytes_a_second(
        (2 * size, lambda turn: functional.gelu(values[turn], approximate="tanh")),
        (3 * size, lambda turn: aten.gelu_backward(values[turn], others[turn], approximate="tanh")),
    )
    special = _bytes_a_second(
        (2 * size, lambda turn: functional.silu(values[turn])),
        (3 * size, lambda turn: aten.silu_backward(values[turn], others[turn])),
        (2 * size, lambda turn: functional.layer_norm(values[turn], _SHAPE[1:], weight, weight)),
        (2 * size, lambda turn: torch.log_softmax(values[turn], -1)),
    )
    plain = _bytes_a_second(
        (3 * size, lambda turn: values[turn] + others[turn]),
        (3 * size, lambda turn: values[turn] * others[turn]),
        (2 * size, lambda turn: values[turn].clone()),
        (size, lambda turn: values[turn].sum(0)),
        (4 * size, lambda turn: torch.cat([values[turn], others[turn]])),
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


def _bytes_a_second(*work: tuple[float, Callable[[int], object]]) -> float:
    return sum(size for size, _ in work) / sum(_cpu_s(run) for _, run in work)


def _product_rate(dtype: torch.dtype) -> float:
    flops = seconds = 0.0
    for rows, inputs, outputs in _PRODUCTS:
        shapes = (rows, inputs), (outputs, inputs), (rows, outputs)
        left, weight, gradient = (_operands(*shape, dtype=dtype) for shape in shapes)
        turned = [[matrix.T for matrix in matrices] for matrices in (left, weight, gradient)]
        for one, two in ((left, weight), (gradient, turned[1]), (turned[2], turned[0])):
            seconds += _cpu_s(lambda turn: functional.linear(one[turn], two[turn]))  # noqa: B023
        flops += 3 * 2.0 * rows * inputs * outputs
    return flops / seconds


def _attention_rates(dtype: torch.dtype) -> tuple[float, float]:
    """Return FLOPs a second of attention and of its backward, counted as `trace.py` does."""
    flops = forward = backward = 0.0
    for batch, heads, tokens, width, is_causal in _ATTENTIONS:
        states = [
            state.requires_grad_()
            for state in _operands(batch, heads, tokens, width, dtype=dtype)[:_ATTENTION_TURNS]
        ]

        def attend(turn: int) -> Tensor:
            state = states[turn]  # noqa: B023 - called at once
            return dense_attention(state, state, state, is_causal=is_causal)  # noqa: B023

        outputs = [attend(turn) for turn in range(_ATTENTION_TURNS)]
        gradient = torch.ones_like(outputs[0])
        forward += _cpu_s(attend, turns=_ATTENTION_TURNS)
        work = partial(_differentiate, outputs, states, gradient)
        backward += _cpu_s(work, turns=_ATTENTION_TURNS)
        flops += attention_flops(states[0], states[0], is_causal=is_causal).computed
    return flops / forward, BACKWARD_FLOPS * flops / backward


def _differentiate(
    outputs: Sequence[Tensor], states: Sequence[Tensor], gradient: Tensor, turn: int
) -> object:
    return torch.autograd.grad(outputs[turn], states[turn], gradient, retain_graph=True)


def _unpack_rate(otherwise: float) -> float:
    """Return bytes a second, read and written, of weights restored from 4 bits.

    Args:
        otherwise: what is taken where bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        return otherwise
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weights = [
        quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
        for weight in _operands(1024, 1536, dtype=torch.float32)
    ]
    size = 4 * 1024 * 1536 + weights[0][0].numel()
    return _bytes_a_second((size, lambda turn: dequantize_4bit(*weights[turn])))


def _optimizer() -> float:
    """Return bytes a second of AdamW's step with clipping before it, as `times.py` counts them."""
    parameter = torch.zeros(_STATE_PARAMETERS, requires_grad=True)
    parameter.grad = torch.ones_like(parameter)
    optimizer = torch.optim.AdamW([parameter], fused=True)

    def step(_: int) -> None:
        torch.nn.utils.clip_grad_norm_([parameter], 1.0)
        optimizer.step()

    return OPTIMIZER_BYTES_A_PARAMETER * _STATE_PARAMETERS / _cpu_s(step, turns=_FEWEST_TURNS)


def _fresh() -> float:
    """Return bytes a second at which new pages are mapped and first written.

    The system is asked for them, since `malloc` may give a block of what was freed before.
    """
    written = torch.zeros(_FRESH_BYTES // 4)

    def write_new(_: int) -> None:
        pages = mmap.mmap(-1, _FRESH_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        torch.frombuffer(pages, dtype=torch.float32).fill_(1.0)

    new = _cpu_s(write_new)
    return _FRESH_BYTES / max(new - _cpu_s(lambda _: written.fill_(1.0)), 1e-9)


def _operation() -> float:
    """Return what an operation costs by itself: forward and backward, on next to nothing."""
    values = torch.ones(8, requires_grad=True)

    def chain(_: int) -> None:
        result = values
        for _ in range(500):
            result = result * 1.0
        result.sum().backward()

    return _cpu_s(chain, turns=_FEWEST_TURNS) / 1000
