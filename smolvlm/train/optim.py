"""Optimizer groups by tower and kind of parameter, and the proof that the live optimizer has them.

In: a model and its `LearningRates`. Out: parameter groups of one tower, kind, rate and weight decay
each, named by the tower. `check_groups` reads the groups back from the optimizer that will really
step, after every wrapper had its say, and raises if one parameter is missing, doubled, or has
another rate than was asked.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from transformers import Trainer, TrainingArguments
from transformers.training_args import OptimizerNames

from smolvlm.checkpoints.learning_rates import KINDS, LearningRates, kind_of
from smolvlm.checkpoints.quantization import num_values
from smolvlm.errors import ConfigError
from smolvlm.model.towers import TOWERS, Tower, tower_of


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupSummary:
    """One line of the printed table."""

    tower: Tower
    learning_rate: float
    num_tensors: int
    num_parameters: int
    num_frozen_parameters: int
    frozen_parts: tuple[str, ...] = ()
    """What is frozen in a tower that trains, in words."""


def tower_groups(
    model: nn.Module, rates: LearningRates, *, weight_decay: float, decay_names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return optimizer groups of all trainable parameters, named by tower or `token_rows`.

    Args:
        model: parameters already frozen or not.
        rates: of every parameter.
        weight_decay: for the parameters in `decay_names`; 0 for the others (norms, biases).
        decay_names: full parameter names.
    """
    decayed = set(decay_names)
    members: dict[tuple[int, int, float, bool], list[nn.Parameter]] = defaultdict(list)
    for name, value in model.named_parameters():
        if value.requires_grad:
            place = (
                TOWERS.index(tower_of(name)),
                KINDS.index(kind_of(name)),
                rates.of(name),
                name not in decayed,
            )
            members[place].append(value)
    return [
        {
            "params": values,
            "lr": rate,
            "weight_decay": 0.0 if is_spared else weight_decay,
            "name": "token_rows" if KINDS[kind] == "token_rows" else TOWERS[tower],
            "kind": KINDS[kind],
        }
        for (tower, kind, rate, is_spared), values in sorted(
            members.items(), key=lambda item: item[0]
        )
    ]


def build_optimizer(
    arguments: TrainingArguments, model: nn.Module, groups: list[dict[str, Any]]
) -> Optimizer:
    """Build the optimizer that the arguments name.

    Args:
        arguments: of transformers.
        model: some optimizers look at it.
        groups: at least one, each with its `lr`.

    Raises:
        ConfigError: its package is not installed.
    """
    try:
        stock: Any = model
        optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(arguments, stock)
    except ImportError as error:
        name = OptimizerNames(arguments.optim).value
        fix = 'install what it names; for bitsandbytes: pip install "smolvlm[quantization]"'
        raise ConfigError(str(error), where=f"train.optim={name}", fix=fix) from error
    rate = max(group["lr"] for group in groups)  # of no group: some ask for a default
    return optimizer_class(groups, **{**settings, "lr": rate})


def rates_by_tower(optimizer: Optimizer) -> dict[str, float]:
    """Return a log line's `learning_rate_<tower>`: live rates, 0 for a frozen tower."""
    rates = dict.fromkeys(TOWERS, 0.0) | {
        group["name"]: float(group["lr"]) for group in optimizer.param_groups
    }
    return {f"learning_rate_{name}": rate for name, rate in rates.items()}


def check_groups(
    model: nn.Module, optimizer: Optimizer, rates: LearningRates
) -> list[GroupSummary]:
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
    for name, parameter in model.named_parameters():
        wanted = rates.of(name)
        if parameter.requires_grad != (wanted > 0):
            problems.append(
                f"{name} is {'trained' if parameter.requires_grad else 'frozen'}, rate asked "
                f"{wanted:g}"
            )
        elif parameter.requires_grad and times[id(parameter)] != 1:
            problems.append(f"{name} stands in {times[id(parameter)]} optimizer groups")
        elif parameter.requires_grad and rate_of[id(parameter)] != wanted:
            problems.append(
                f"{name} has learning rate {rate_of[id(parameter)]:g}, asked {wanted:g}"
            )
    if problems:
        shown = "\n".join(f"- {problem}" for problem in problems[:10])
        raise ConfigError(
            f"the optimizer does not hold what was asked ({len(problems)} parameters):\n{shown}",
            where="train.*_lr",
            fix="remove the optimizer block of a DeepSpeed file, or a callback that changes the "
            "groups",
        )
    return [_summary(model, tower, rates) for tower in TOWERS]


def _summary(model: nn.Module, tower: Tower, rates: LearningRates) -> GroupSummary:
    parameters = [value for name, value in model.named_parameters() if tower_of(name) == tower]
    trained = [value for value in parameters if value.requires_grad]
    return GroupSummary(
        tower=tower,
        learning_rate=rates.of_tower(tower),
        num_tensors=len(trained),
        num_parameters=sum(num_values(value) for value in trained),
        num_frozen_parameters=sum(
            num_values(value) for value in parameters if not value.requires_grad
        ),
        frozen_parts=tuple(part.words for part in rates.frozen if part.tower == tower),
    )


def groups_table(groups: Sequence[GroupSummary]) -> str:
    """Return the table that is printed at start."""
    lines = [f"{'tower':<16}{'learning rate':>14}{'trained':>16}{'frozen':>16}"]
    lines += [
        f"{group.tower:<16}{group.learning_rate:>14g}{group.num_parameters:>16,}{group.num_frozen_parameters:>16,}"
        f"{'  ' if group.frozen_parts else ''}{', '.join(group.frozen_parts)}"
        for group in groups
    ]
    return "\n".join(lines)
