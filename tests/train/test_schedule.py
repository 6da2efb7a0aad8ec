"""Every tower's rate goes the way that it would go alone, under each of transformers' schedules."""

from typing import Any

import pytest
import torch
from transformers.optimization import get_scheduler

from smolvlm.errors import ConfigError
from smolvlm.train.schedule import schedule_by_group

RATES = {"vision_tower": 2e-6, "connector": 1e-4, "language_model": 2e-5}
STEPS, WARMUP = 12, 3
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("linear", {}),
    ("cosine", {}),
    ("cosine_with_restarts", {"num_cycles": 2}),
    ("polynomial", {"lr_end": 1e-6, "power": 2.0}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("inverse_sqrt", {}),
    ("cosine_with_min_lr", {"min_lr": 1e-6}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.1}),
    ("cosine_warmup_with_min_lr", {"min_lr": 1e-6}),
    ("warmup_stable_decay", {"num_decay_steps": 4, "min_lr_ratio": 0.1}),
]


def optimizer_of(rates: dict[str, float]) -> torch.optim.Optimizer:
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate, "name": name}
        for name, rate in rates.items()
    ]
    return torch.optim.AdamW(groups)


def rates_of(optimizer: torch.optim.Optimizer, schedule: Any) -> list[list[float]]:
    found = []
    for _ in range(STEPS):
        found.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


def scheduled(optimizer: torch.optim.Optimizer, name: str, keywords: dict[str, Any]) -> Any:
    return get_scheduler(
        name,
        optimizer=optimizer,
        num_warmup_steps=WARMUP,
        num_training_steps=STEPS,
        scheduler_specific_kwargs=keywords,
    )


@pytest.mark.parametrize(("name", "keywords"), SCHEDULES)
def test_each_group_goes_as_it_would_alone(name: str, keywords: dict[str, Any]) -> None:
    optimizer = optimizer_of(RATES)
    ours = schedule_by_group(optimizer, lambda: scheduled(optimizer, name, keywords))
    together = rates_of(optimizer, ours)
    for number, (tower, rate) in enumerate(RATES.items()):
        alone = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate)
        expected = [step[0] for step in rates_of(alone, scheduled(alone, name, keywords))]
        assert [step[number] for step in together] == pytest.approx(expected, rel=1e-12), tower


def test_the_floor_is_the_one_asked_for_whatever_the_rate() -> None:
    optimizer = optimizer_of(RATES)
    keywords = {"min_lr": 1e-6}
    ours = schedule_by_group(
        optimizer, lambda: scheduled(optimizer, "cosine_with_min_lr", keywords)
    )
    rates_of(optimizer, ours)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([1e-6] * 3)


def test_a_rate_that_the_schedule_refuses_is_named() -> None:
    optimizer = optimizer_of(RATES)
    with pytest.raises(ConfigError, match=r"refuses the rate 2e-06 of vision_tower: lr_end"):
        schedule_by_group(optimizer, lambda: scheduled(optimizer, "polynomial", {"lr_end": 1e-5}))


def test_one_that_watches_a_metric_stays_as_it_is() -> None:
    optimizer = optimizer_of(RATES)
    ours = schedule_by_group(
        optimizer, lambda: torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    )
    assert isinstance(ours, torch.optim.lr_scheduler.ReduceLROnPlateau)
    for loss in (1.0, 2.0):
        ours.step(loss)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx(
        [rate / 10 for rate in RATES.values()]
    )


def test_it_goes_on_from_a_saved_state() -> None:
    def built() -> tuple[torch.optim.Optimizer, Any]:
        optimizer = optimizer_of(RATES)
        keywords = {"min_lr": 1e-6}
        return optimizer, schedule_by_group(
            optimizer, lambda: scheduled(optimizer, "cosine_with_min_lr", keywords)
        )

    whole = rates_of(*built())
    optimizer, schedule = built()
    for _ in range(5):
        optimizer.step()
        schedule.step()
    states = optimizer.state_dict(), schedule.state_dict()
    again, resumed = built()
    again.load_state_dict(states[0])
    resumed.load_state_dict(states[1])
    assert rates_of(again, resumed)[: STEPS - 5] == whole[5:]
