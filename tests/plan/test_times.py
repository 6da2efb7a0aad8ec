"""Seconds from operations and rates."""

from dataclasses import replace

import pytest
import torch

from smolvlm.plan.devices import Device
from smolvlm.plan.times import mapping_seconds, operations_seconds, optimizer_seconds
from smolvlm.plan.trace import Operations, OpTotals

OPERATIONS: Operations = {
    ("product", torch.float32): OpTotals(count=2, flops=200.0, computed=300.0, num_bytes=1e9),
    ("plain", torch.float32): OpTotals(count=1, num_bytes=40.0, fresh_bytes=6.0),
    ("gelu", torch.bfloat16): OpTotals(count=1, num_bytes=8.0),
}


def test_a_cpu_adds_everything_up(cpu: Device) -> None:
    # 300 / 100 and 40 / 20 and 8 / 4, then 4 operations of 0.5 s and 6 fresh bytes at 2 a second.
    assert operations_seconds(OPERATIONS, cpu) == pytest.approx(3 + 2 + 2 + 2 + 3)


def test_a_gpu_launches_ahead(cpu: Device) -> None:
    gpu = replace(cpu, is_overlapped=True, fresh_bytes=None)
    # Of the 300 FLOPs that a CPU computes 200 are of use, and others are left out.
    assert operations_seconds(OPERATIONS, gpu) == pytest.approx(6)
    assert operations_seconds(OPERATIONS, replace(gpu, operation_s=3.0)) == pytest.approx(12)


def test_the_optimizer_moves_forty_bytes_a_parameter(cpu: Device) -> None:
    assert optimizer_seconds(5, cpu) == pytest.approx(5)


def test_new_pages_are_mapped_on_a_cpu_alone(cpu: Device) -> None:
    assert mapping_seconds(8.0, cpu) == pytest.approx(4)
    assert mapping_seconds(8.0, replace(cpu, fresh_bytes=None)) == 0.0
