"""The rate that shares of the matrix rate are shares of."""

import time
from typing import Any

import pytest
import torch

from benchmarks.worker import flops_per_cpu_s

PRODUCT_S, TICK_S, SIZE = 0.0044, 0.004, 8
"""Of two threads together: each took half of it."""


def test_a_thread_that_the_kernel_has_not_counted_yet_does_not_raise_the_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = 0

    def multiply(left: torch.Tensor, right: torch.Tensor) -> None:
        nonlocal done
        assert left.shape == right.shape == (SIZE, SIZE)
        done += 1

    def counted() -> float:
        """This thread's half as it is, the other's as of the last tick."""
        half = done * PRODUCT_S / 2
        return half + half // TICK_S * TICK_S

    monkeypatch.setattr(torch, "mm", multiply)
    monkeypatch.setattr(time, "process_time", counted)
    true_rate = 2.0 * SIZE**3 / PRODUCT_S
    assert flops_per_cpu_s("float32", size=SIZE) == pytest.approx(true_rate, rel=0.03)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_rate_is_of_this_machine(precision: Any) -> None:
    assert flops_per_cpu_s(precision, size=64, seconds=0.01) > 0
