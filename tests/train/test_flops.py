"""The estimate of a step's cost against a count of the operations that really ran."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smolvlm.config.adapters import AdapterConfig
from smolvlm.model.adapters import attach_adapters
from smolvlm.model.load import load_checkpoint
from smolvlm.model.towers import TOWERS, Tower, freeze
from smolvlm.train import flops
from smolvlm.train.flops import compute_cost, peak_flops_per_s

SEQUENCE, TILES, TARGETS = 40, 3, 12


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Any:
    return load_checkpoint(str(tiny_folder)).model


def counted(model: Any, rates: dict[Tower, float]) -> float:
    """Count the FLOPs of one pack forward and backward."""
    freeze(model, rates)
    ids = torch.full((SEQUENCE,), 5)
    ids[: 4 * TILES] = model.config.image_token_id
    pack = {
        "input_ids": ids,
        "position_ids": torch.arange(SEQUENCE),
        "scope_end": torch.full((SEQUENCE,), SEQUENCE),
        "predict_from": torch.arange(SEQUENCE - TARGETS, SEQUENCE),
        "target_ids": torch.zeros(TARGETS, dtype=torch.long),
        "target_weights": torch.ones(TARGETS),
        "tiles": torch.zeros(TILES, 3, 32, 32, dtype=torch.uint8),
        "cached_features": None,
        "slot_tiles": torch.arange(TILES),
    }
    with FlopCounterMode(display=False) as counter:
        model(pack=pack).loss.backward()
    model.zero_grad()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "rates",
    [
        {"vision_tower": 1.0, "connector": 1.0, "language_model": 1.0},
        {"vision_tower": 0.0, "connector": 1.0, "language_model": 1.0},
        {"vision_tower": 0.0, "connector": 1.0, "language_model": 0.0},
    ],
    ids=["all train", "tower frozen", "connector alone"],
)
def test_the_estimate_is_near_the_count(model: Any, rates: dict[Tower, float]) -> None:
    cost = compute_cost(model.config, rates)
    estimate = cost.pack(num_tokens=SEQUENCE, num_computed_tiles=TILES, num_targets=TARGETS)
    assert estimate == pytest.approx(counted(model, rates), rel=0.1)


@pytest.mark.parametrize("adapted", [("language_model",), ("vision_tower", "language_model")])
def test_the_estimate_is_near_the_count_with_adapters(tiny_folder: Path, adapted: tuple[Tower, ...]) -> None:
    model = load_checkpoint(str(tiny_folder)).model
    attach_adapters(model, {tower: AdapterConfig(r=1) for tower in adapted}, base="", seed=0)
    rates: dict[Tower, float] = {tower: float(tower in adapted or tower == "connector") for tower in TOWERS}
    cost = compute_cost(model.config, rates, adapted=adapted)
    estimate = cost.pack(num_tokens=SEQUENCE, num_computed_tiles=TILES, num_targets=TARGETS)
    assert estimate == pytest.approx(counted(model, rates), rel=0.15)


def test_the_peak_is_measured_once_and_not_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    peak_flops_per_s.cache_clear()
    monkeypatch.setattr(flops, "MEASURING_S", 0.0)
    peak = peak_flops_per_s("cpu", torch.float32)
    assert 1e8 < peak < 1e14
    assert peak_flops_per_s("cpu", torch.float32) == peak
    peak_flops_per_s.cache_clear()


def test_measuring_the_device_leaves_the_runs_randomness_alone() -> None:
    """It is measured at a process's first log line, which a resumed run writes at another step."""
    before = torch.random.get_rng_state()
    peak_flops_per_s.__wrapped__("cpu", torch.float32)
    assert torch.equal(torch.random.get_rng_state(), before)
