"""Optimizer groups by tower, and the proof that the live optimizer has them.

In: a model and a learning rate a tower (0 freezes it). Out: parameter groups, two a tower (with and without weight
decay). `check_groups` reads the groups back from the optimizer that will really step, after every wrapper had its say,
and raises if one parameter is missing, doubled, or has another rate than was asked.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from smolvlm.errors import ConfigError
from smolvlm.model.towers import TOWERS, Tower, learning_rates_of, tower_of


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupSummary:
    """One line of the printed table."""

    tower: Tower
    learning_rate: float
    num_tensors: int
    num_parameters: int
    num_frozen_parameters: int


def tower_groups(
    model: nn.Module,
    learning_rates: Mapping[Tower, float],
    *,
    weight_decay: float,
    decay_names: Sequence[str],
) -> list[dict[str, Any]]:
    """Return optimizer groups of all trainable parameters, `name` being the tower's.

    Args:
        model: parameters already frozen or not.
        learning_rates: by tower.
        weight_decay: for the parameters in `decay_names`; 0 for the others (norms, biases).
        decay_names: full parameter names.
    """
    decayed = set(decay_names)
    groups: list[dict[str, Any]] = []
    for tower in TOWERS:
        own = [
            (name, value) for name, value in model.named_parameters() if value.requires_grad and tower_of(name) == tower
        ]
        for decays in (True, False):
            members = [value for name, value in own if (name in decayed) == decays]
            if members:
                groups.append(
                    {
                        "params": members,
                        "lr": learning_rates[tower],
                        "weight_decay": weight_decay if decays else 0.0,
                        "name": tower,
                    }
                )
    return groups


def check_groups(model: nn.Module, optimizer: Optimizer, learning_rates: Mapping[Tower, float]) -> list[GroupSummary]:
    """Return the live optimizer's groups, summed by tower.

    Raises:
        ConfigError: the optimizer does not hold exactly what was asked.
    """
    rate_of: dict[int, float] = {}
    times = Counter[int]()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            rate_of[id(parameter)] = float(group.get("initial_lr", group["lr"]))
            times[id(parameter)] += 1
    problems: list[str] = []
    rates = learning_rates_of(model, learning_rates)
    for name, parameter in model.named_parameters():
        wanted = rates[name]
        if parameter.requires_grad != (wanted > 0):
            problems.append(f"{name} is {'trained' if parameter.requires_grad else 'frozen'}, rate asked {wanted:g}")
        elif parameter.requires_grad and times[id(parameter)] != 1:
            problems.append(f"{name} stands in {times[id(parameter)]} optimizer groups")
        elif parameter.requires_grad and rate_of[id(parameter)] != wanted:
            problems.append(f"{name} has learning rate {rate_of[id(parameter)]:g}, asked {wanted:g}")
    if problems:
        shown = "\n".join(f"- {problem}" for problem in problems[:10])
        raise ConfigError(
            f"the optimizer does not hold what was asked ({len(problems)} parameters):\n{shown}",
            where="train.*_lr",
            fix="remove the optimizer block of a DeepSpeed file, or a callback that changes the groups",
        )
    return [_summary(model, tower, learning_rates[tower]) for tower in TOWERS]


def _summary(model: nn.Module, tower: Tower, learning_rate: float) -> GroupSummary:
    own = [value for name, value in model.named_parameters() if tower_of(name) == tower]
    trained = [value for value in own if value.requires_grad]
    return GroupSummary(
        tower=tower,
        learning_rate=learning_rate,
        num_tensors=len(trained),
        num_parameters=sum(value.numel() for value in trained),
        num_frozen_parameters=sum(value.numel() for value in own if not value.requires_grad),
    )


def groups_table(groups: Sequence[GroupSummary]) -> str:
    """Return the table that is printed at start."""
    lines = [f"{'tower':<16}{'learning rate':>14}{'trained':>16}{'frozen':>16}"]
    lines += [
        f"{group.tower:<16}{group.learning_rate:>14g}{group.num_parameters:>16,}{group.num_frozen_parameters:>16,}"
        for group in groups
    ]
    return "\n".join(lines)
