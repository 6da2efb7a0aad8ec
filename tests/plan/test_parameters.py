"""Parameters by part."""

from typing import Any

import pytest

from smolvlm.plan.fake_run import PlannedModel, fake_run
from smolvlm.plan.parameters import (
    PARTS,
    model_shares,
    part_sizes,
    small_state_bytes,
    state_bytes,
    total,
)


def test_parts_add_up_to_the_model(run_config: Any, planned_model: PlannedModel) -> None:
    with fake_run(run_config("adapters.language.type=lora"), planned_model) as run:
        sizes = part_sizes(run.model, optimizer="adamw_torch_fused")
        parameters = list(run.model.parameters())
    assert tuple(sizes) == PARTS
    whole = total(sizes.values())
    trained = sum(value.numel() for value in parameters if value.requires_grad)
    assert whole.num_parameters == sum(value.numel() for value in parameters)
    assert whole.num_trained == trained
    assert (whole.gradient_bytes, whole.optimizer_bytes) == (4 * trained, 8 * trained)
    assert sizes["vision tower"].num_trained == sizes["output head"].num_trained == 0
    assert sizes["adapters"].num_trained == sizes["adapters"].num_parameters > 0


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        ("adamw_torch_fused", 8000),
        ("adamw_bnb_8bit", 2000),
        ("sgd", 0),
        ("adafactor", 0),
        ("lion_8bit", 1000),
        ("lion_32bit", 4000),
        ("something new", 8000),
    ],
)
def test_state_of_an_optimizer(optimizer: str, expected: int) -> None:
    assert state_bytes(optimizer, num_parameters=1000, itemsize=4) == expected


def test_a_frozen_tower_stays_whole_under_fsdp2(
    run_config: Any, planned_model: PlannedModel
) -> None:
    with fake_run(run_config(), planned_model) as run:
        shares = model_shares(run.model, tokens=100, uses_bf16=False)
        sizes = part_sizes(run.model, optimizer="adamw_torch")
        state = small_state_bytes(run.model, optimizer="adamw_torch")
    assert shares.whole_weights == sizes["vision tower"].weight_bytes
    assert shares.trained_weights == total(sizes.values()).gradient_bytes
    outside = ("connector", "embeddings", "output head")
    # The norm behind the last layer is outside of them too.
    norm = 4 * run.model.config.text_config.hidden_size
    assert shares.root_weights == norm + sum(sizes[part].weight_bytes for part in outside)
    # Two layers, keys and values of 2 heads of width 16, float32.
    assert shares.keys_and_values == 2 * 2 * 2 * 16 * 100 * 4
    assert state == total(sizes.values()).optimizer_bytes
