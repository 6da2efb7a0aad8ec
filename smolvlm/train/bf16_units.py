"""Whether a CPU has units for bfloat16, and how much faster it multiplies with them.

torch computes bfloat16 on any CPU. Without such units it takes a hundred times as long, and with
them it is not always faster: one thread of a Xeon with AVX512-BF16 and no AMX reached half of
float32's rate. So the advice is given only where the units are there and a measurement of this
machine agrees.
"""

import time

import torch
from torch import Tensor
from torch.nn import functional

STEP_SPEEDUP = 1.45
"""Of a training step at the 256M model's widths, one thread of a Zen 4 (AVX512-BF16, no AMX)."""
MEASURING_S = 0.2
NUM_ROUNDS = 4
MATRIX_SIZE = 512
MIN_GAIN = 1.2
"""Of products; a training step gains less than they do."""
_CAPABILITIES = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""Of `torch.cpu.get_capabilities`, on x86 and on Arm."""
_CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
"""Private functions of `torch.cpu` for x86, asked where torch has no `get_capabilities` yet."""


def has_bf16_units() -> bool:
    """Return whether torch finds units for products of bfloat16 matrices in this CPU."""
    if hasattr(torch.cpu, "get_capabilities"):
        capabilities = torch.cpu.get_capabilities()
        return any(capabilities.get(name, False) for name in _CAPABILITIES)
    return any(getattr(torch.cpu, name)() for name in _CHECKS if hasattr(torch.cpu, name))


def faster_in_bf16() -> list[str]:
    """Return a note on how much faster bfloat16 would be on this CPU; no note where it is not.

    Takes `MEASURING_S` on a CPU with the units.
    """
    if not has_bf16_units():
        return []
    gain = bf16_gain()
    if gain < MIN_GAIN:
        return []
    note = (
        "note: this run trains in float32, and this CPU multiplies bfloat16 matrices at least "
        f"{gain:.1f} "
        f"times as fast (measured now); with train.bf16=true a training step was {STEP_SPEEDUP} "
        "times as fast on a CPU with AVX512-BF16"
    )
    return [note]


def bf16_gain() -> float:
    """Measure how many times as fast as float32 this CPU multiplies bfloat16 matrices, at least.

    The two take turns. Of a round the best product of each counts, and of the rounds the lowest
    gain: where other programs compute beside it a product may take ten times as long as the one
    before, and advice that is not given costs less than advice that is wrong.
    """
    bf16 = torch.ones(MATRIX_SIZE, MATRIX_SIZE, dtype=torch.bfloat16)
    float32 = bf16.float()
    gains = []
    for _ in range(NUM_ROUNDS):
        best_bf16 = best_float32 = float("inf")
        begun = time.perf_counter()
        while time.perf_counter() - begun < MEASURING_S / NUM_ROUNDS:
            best_bf16 = min(best_bf16, _product_s(bf16))
            best_float32 = min(best_float32, _product_s(float32))
        gains.append(best_float32 / best_bf16)
    return min(gains)


def _product_s(matrix: Tensor) -> float:
    started = time.perf_counter()
    functional.linear(matrix, matrix)  # float32 as a run's layers compute it (`model/onednn.py`)
    return time.perf_counter() - started
