"""Bfloat16 on a CPU is advised where the units are there and pay here, and nowhere else."""

import time
from typing import Any

import pytest
import torch

from smolvlm.train import bf16_units
from smolvlm.train.bf16_units import MEASURING_S, bf16_gain, faster_in_bf16, has_bf16_units


def see(monkeypatch: pytest.MonkeyPatch, **capabilities: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"avx512_bf16": False, "amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({}, False),
    ],
)
def test_the_units_of_x86_and_arm_are_known(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, Any], expected: bool
) -> None:
    see(monkeypatch, **capabilities)
    assert has_bf16_units() == expected


@pytest.mark.parametrize("avx512", [True, False])
def test_releases_without_get_capabilities_are_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, avx512: bool
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    assert has_bf16_units() == avx512


def test_the_note_gives_the_gain_measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, avx512_bf16=True)
    monkeypatch.setattr(bf16_units, "bf16_gain", lambda: 2.19)
    assert faster_in_bf16() == [
        "note: this run trains in float32, and this CPU multiplies bfloat16 matrices at least 2.2 "
        "times as fast "
        "(measured now); with train.bf16=true a training step was 1.45 times as fast on a CPU with "
        "AVX512-BF16"
    ]


def test_units_that_do_not_pay_are_not_spoken_of(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch, avx512_bf16=True)
    monkeypatch.setattr(bf16_units, "bf16_gain", lambda: 1.1)
    assert faster_in_bf16() == []


def test_without_units_nothing_is_said_or_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    see(monkeypatch)
    monkeypatch.setattr(
        bf16_units, "bf16_gain", lambda: pytest.fail("takes a hundred times as long there")
    )
    assert faster_in_bf16() == []


def test_of_the_rounds_the_lowest_gain_counts_and_of_a_round_the_best_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    durations = {
        torch.bfloat16: iter([0.004, 0.002] * 99),
        torch.float32: iter([0.006, 0.010] * 99),
    }

    def product_s(matrix: torch.Tensor) -> float:
        nonlocal now
        duration = next(durations[matrix.dtype])
        duration *= (
            2 if matrix.dtype == torch.bfloat16 and now > MEASURING_S / 2 else 1
        )  # somebody else computes
        now += duration
        return duration

    monkeypatch.setattr(bf16_units, "_product_s", product_s)
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    assert bf16_gain() == pytest.approx(0.006 / 0.004)


def test_measuring_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    bf16_gain()
    assert torch.equal(torch.get_rng_state(), before)
