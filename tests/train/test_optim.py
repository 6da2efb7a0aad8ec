"""Each tower gets the rate that was asked, and an optimizer that holds anything else is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.frozen_parts import frozen_parts
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.freeze import FreezeConfig
from smolvlm.errors import ConfigError
from smolvlm.model.towers import TOWERS, Tower, parameters_of
from smolvlm.train.optim import check_groups, groups_table, tower_groups

FULL: dict[Tower, float] = {"vision_tower": 0.0, "connector": 1e-4, "language_model": 2e-5}
RATES = LearningRates(full=FULL)


@pytest.fixture(scope="module")
def loaded(tiny_folder: Path) -> Any:
    return load_checkpoint(str(tiny_folder)).model


@pytest.fixture
def model(loaded: Any) -> Any:
    """The tiny model, frozen as `RATES` says."""
    freeze(loaded, RATES)
    return loaded


def optimizer_for(model: nn.Module, rates: LearningRates = RATES) -> Optimizer:
    decayed = [name for name, value in model.named_parameters() if value.ndim > 1]
    return SGD(tower_groups(model, rates, weight_decay=0.1, decay_names=decayed), lr=123.0)


def test_groups_hold_every_trained_parameter_once_at_its_towers_rate(model: Any) -> None:
    optimizer = optimizer_for(model)
    assert [
        (group["name"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups
    ] == [
        ("connector", 1e-4, 0.1),
        ("language_model", 2e-5, 0.1),
        ("language_model", 2e-5, 0.0),
    ]
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    trained = [id(parameter) for parameter in model.parameters() if parameter.requires_grad]
    assert sorted(held) == sorted(trained)
    undecayed = {id(parameter) for parameter in optimizer.param_groups[2]["params"]}
    assert undecayed == {
        id(value) for _, value in parameters_of(model, "language_model") if value.ndim == 1
    }


def test_what_was_asked_passes_and_is_printed(model: Any) -> None:
    found = check_groups(model, optimizer_for(model), RATES)
    assert [(group.tower, group.learning_rate) for group in found] == [
        (tower, FULL[tower]) for tower in TOWERS
    ]
    sizes = {
        tower: sum(value.numel() for _, value in parameters_of(model, tower)) for tower in TOWERS
    }
    assert [group.num_parameters for group in found] == [
        0,
        sizes["connector"],
        sizes["language_model"],
    ]
    assert [group.num_frozen_parameters for group in found] == [sizes["vision_tower"], 0, 0]
    assert groups_table(found).splitlines() == [
        "tower            learning rate         trained          frozen",
        f"vision_tower                 0               0{sizes['vision_tower']:>16,}",
        f"connector               0.0001{sizes['connector']:>16,}               0",
        f"language_model           2e-05{sizes['language_model']:>16,}               0",
    ]


def test_a_schedule_under_way_does_not_count_as_another_rate(model: Any) -> None:
    optimizer = optimizer_for(model)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 0.5)
    assert optimizer.param_groups[0]["lr"] == 5e-5
    check_groups(model, optimizer, RATES)


def test_a_missing_parameter_is_refused(model: Any) -> None:
    optimizer = optimizer_for(model)
    optimizer.param_groups[0]["params"].clear()
    with pytest.raises(
        ConfigError,
        match=r"connector\.modality_projection\.proj\.weight stands in 0 optimizer groups",
    ):
        check_groups(model, optimizer, RATES)


def test_a_parameter_in_two_groups_is_refused(model: Any) -> None:
    optimizer = optimizer_for(model)
    optimizer.param_groups[0]["params"].append(model.lm_head.weight)
    with pytest.raises(ConfigError, match=r"lm_head\.weight stands in 2 optimizer groups"):
        check_groups(model, optimizer, RATES)


def test_another_rate_is_refused(model: Any) -> None:
    optimizer = optimizer_for(model, LearningRates(full=FULL | {"connector": 3e-4}))
    with pytest.raises(ConfigError, match=r"has learning rate 0\.0003, asked 0\.0001") as caught:
        check_groups(model, optimizer, RATES)
    assert "(1 parameters)" in caught.value.what
    assert caught.value.where == "train.*_lr"


def test_a_frozen_parameter_that_should_train_is_refused(model: Any) -> None:
    optimizer = optimizer_for(model)
    model.lm_head.weight.requires_grad_(False)
    with pytest.raises(ConfigError, match=r"lm_head\.weight is frozen, rate asked 2e-05"):
        check_groups(model, optimizer, RATES)


def test_a_trained_parameter_that_should_be_frozen_is_refused(model: Any) -> None:
    name, first = next(parameters_of(model, "vision_tower"))
    first.requires_grad_(True)
    with pytest.raises(ConfigError, match=f"{name} is trained, rate asked 0"):
        check_groups(model, optimizer_for(model), RATES)


def test_one_rate_for_all_is_refused_and_ten_parameters_are_named(model: Any) -> None:
    optimizer = SGD(
        [parameter for parameter in model.parameters() if parameter.requires_grad], lr=1e-3
    )
    with pytest.raises(ConfigError) as caught:
        check_groups(model, optimizer, RATES)
    trained = sum(1 for parameter in model.parameters() if parameter.requires_grad)
    assert f"({trained} parameters)" in caught.value.what
    assert caught.value.what.count("\n- ") == 10


def test_a_run_steps_with_fused_adamw_and_the_rates_asked(frozen_run: Any) -> None:
    trainer = frozen_run.trained.trainer
    live = trainer.optimizer.optimizer
    assert isinstance(live, torch.optim.AdamW)
    assert all(group["fused"] for group in live.param_groups)
    assert {group["name"]: group["initial_lr"] for group in live.param_groups} == {
        "connector": 5e-4,
        "language_model": 1e-3,
    }
    steps = {int(state["step"]) for state in live.state.values()}
    assert steps == {len(frozen_run.steps)}, "a step without pictures counts for the connector too"
    assert len(live.state) == sum(1 for value in trainer.model.parameters() if value.requires_grad)
    assert trainer.check_optimizer().splitlines()[2].startswith("connector               0.0005")


def test_frozen_parts_are_in_no_group_and_in_the_table(loaded: Any) -> None:
    settings = FreezeConfig(embeddings=True, language_layers=[0, 1])
    rates = LearningRates(full=FULL, frozen=frozen_parts(settings, loaded.config))
    freeze(loaded, rates)
    optimizer = optimizer_for(loaded, rates)
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    out = {name for name, value in parameters_of(loaded, "language_model") if id(value) not in held}
    assert {name.split("layers.0.")[0] for name in out} == {
        "model.text_model.embed_tokens.weight",
        "model.text_model.",
    }
    table = groups_table(check_groups(loaded, optimizer, rates)).splitlines()
    frozen = sum(
        value.numel() for name, value in parameters_of(loaded, "language_model") if name in out
    )
    assert table[3].endswith(f"{frozen:>16,}  embeddings, layers 0 to 0 of 2")
    loaded.get_input_embeddings().weight.requires_grad_(True)
    with pytest.raises(ConfigError, match=r"embed_tokens\.weight is trained, rate asked 0"):
        check_groups(loaded, optimizer, rates)


def test_adapters_and_weights_of_one_tower_have_groups_and_rates_of_their_own(
    tiny_folder: Path,
) -> None:
    model = load_checkpoint(str(tiny_folder)).model
    attach_adapters(model, {"language_model": AdapterConfig(r=2)}, base="", seed=0)
    rates = LearningRates(full={"language_model": 1e-5}, adapter={"language_model": 1e-3})
    freeze(model, rates)
    optimizer = optimizer_for(model, rates)
    check_groups(model, optimizer, rates)
    assert [
        (group["name"], group["kind"], group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
    ] == [
        ("language_model", "full", 1e-5, 0.1),
        ("language_model", "full", 1e-5, 0.0),
        ("language_model", "adapter", 1e-3, 0.1),
    ]
