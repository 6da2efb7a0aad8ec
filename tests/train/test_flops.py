"""The estimate of a step's cost against a count of the operations that really ran."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.frozen_parts import frozen_parts
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.freeze import FreezeConfig
from smolvlm.model.towers import TOWERS, Tower
from smolvlm.train import flops
from smolvlm.train.flops import compute_cost, peak_flops_per_s

SEQUENCE, TILES, TARGETS = 40, 3, 12


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> Any:
    return load_checkpoint(str(tiny_folder)).model


def counted(model: Any) -> float:
    """Count the FLOPs of one pack forward and backward."""
    ids = torch.full((SEQUENCE,), 5)
    ids[: 4 * TILES] = model.config.image_token_id
    pack = {
        "input_ids": ids,
        "position_ids": torch.arange(SEQUENCE),
        "scope_end": torch.full((SEQUENCE,), SEQUENCE),
        "image_places": torch.arange(4 * TILES),
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


def estimated(model: Any) -> float:
    cost = compute_cost(model)
    return cost.pack(num_tokens=SEQUENCE, num_computed_tiles=TILES, num_targets=TARGETS)


@pytest.mark.parametrize(
    ("towers", "frozen"),
    [
        (TOWERS, FreezeConfig()),
        (("connector", "language_model"), FreezeConfig()),
        (("connector",), FreezeConfig()),
        (("language_model",), FreezeConfig(embeddings=True, language_layers=[0, 1])),
        (
            ("language_model",),
            FreezeConfig(embeddings=True, output_head=True, language_layers=[1, 2]),
        ),
        (("language_model",), FreezeConfig(embeddings=True, language_layers=[0, 2])),
        (("vision_tower",), FreezeConfig(vision_embeddings=True, vision_layers=[0, 1])),
        (TOWERS, FreezeConfig(embeddings=True, language_layers=[0, 2], vision_layers=[0, 2])),
    ],
    ids=str,
)
def test_the_estimate_is_near_the_count(
    model: Any, towers: tuple[Tower, ...], frozen: FreezeConfig
) -> None:
    rates = LearningRates(
        full=dict.fromkeys(towers, 1.0), frozen=frozen_parts(frozen, model.config)
    )
    freeze(model, rates)
    assert estimated(model) == pytest.approx(counted(model), rel=0.1)


def test_frozen_first_layers_cost_no_backward_pass(model: Any) -> None:
    """Of two layers the first is gone through once, the second forward, for its inputs and for its
    weights."""

    def per_token(**settings: Any) -> float:
        parts = frozen_parts(FreezeConfig(**settings), model.config)
        freeze(model, LearningRates(full={"language_model": 1.0}, frozen=parts))
        return compute_cost(model).per_token

    whole = per_token()
    assert per_token(language_layers=[0, 1]) == pytest.approx(
        whole * 5 / 6
    )  # the embeddings beneath train
    assert per_token(language_layers=[0, 1], embeddings=True) == pytest.approx(whole * 4 / 6)
    assert per_token(language_layers=[1, 2], embeddings=True) == pytest.approx(whole * 5 / 6)
    assert per_token(language_layers=[0, 2], embeddings=True) == pytest.approx(whole * 2 / 6)


@pytest.mark.parametrize("adapted", [("language_model",), ("vision_tower", "language_model")])
def test_the_estimate_is_near_the_count_with_adapters(
    tiny_folder: Path, adapted: tuple[Tower, ...]
) -> None:
    model = load_checkpoint(str(tiny_folder)).model
    attach_adapters(model, {tower: AdapterConfig(r=1) for tower in adapted}, base="", seed=0)
    freeze(model, LearningRates(full={"connector": 1.0}, adapter=dict.fromkeys(adapted, 1.0)))
    assert estimated(model) == pytest.approx(counted(model), rel=0.15)


def test_the_estimate_is_near_the_count_with_an_adapter_in_the_upper_layer_alone(
    tiny_folder: Path,
) -> None:
    model = load_checkpoint(str(tiny_folder)).model
    upper = AdapterConfig(r=1, targets=["model.text_model.layers.1.*_proj"])
    attach_adapters(model, {"language_model": upper}, base="", seed=0)
    freeze(model, LearningRates(adapter={"language_model": 1.0}))
    assert estimated(model) == pytest.approx(counted(model), rel=0.15)


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
