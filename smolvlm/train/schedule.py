"""Learning-rate schedules that see each tower's own rate.

transformers builds one schedule for all groups of an optimizer, and some of them (a cosine or a
polynomial down to a given rate) read the rate that they begin from out of `optimizer.defaults`:
one number, where every tower has its own. Here the schedule is built once a rate, as for an
optimizer that has this rate alone, and each group follows its own.
"""

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from smolvlm.errors import ConfigError


def schedule_by_group(optimizer: Optimizer, build: Callable[[], LRScheduler]) -> LRScheduler:
    """Return a schedule in which each group goes the way that its own rate asks for.

    Args:
        optimizer: its groups have their rates; `defaults["lr"]` is changed meanwhile.
        build: builds the schedule for the optimizer as it is.

    Raises:
        ConfigError: the schedule refuses a tower's rate.
    """
    _complete(optimizer)
    rates = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
    default = optimizer.defaults.get("lr")
    built: dict[float, LRScheduler] = {}
    try:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            if rate not in built:
                optimizer.defaults["lr"] = rate
                built[rate] = _built(build, name=group.get("name", ""), rate=rate)
                _restore(optimizer, rates)
    finally:
        optimizer.defaults["lr"] = default
    lambdas = [
        schedule.lr_lambdas[0] if isinstance(schedule := built[rate], LambdaLR) else None
        for rate in rates
    ]
    if len(built) == 1 or None in lambdas:  # one that watches a metric scales whatever it finds
        return build()
    return LambdaLR(optimizer, [function for function in lambdas if function is not None])


def _complete(optimizer: Any) -> None:
    """Give DeepSpeed's optimizer, which holds torch's, the `defaults` that schedules read."""
    held = getattr(optimizer, "optimizer", None)
    if held is not None and not hasattr(held, "defaults"):
        held.defaults = held.optimizer.defaults


def _built(build: Callable[[], LRScheduler], *, name: str, rate: float) -> LRScheduler:
    try:
        return build()
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"the schedule refuses the rate {rate:g} of {name}: {error}",
            where="train.lr_scheduler_kwargs",
            fix="mend the keywords, or that tower's rate",
        ) from error


def _restore(optimizer: Optimizer, rates: list[float]) -> None:
    """Undo what building a schedule did to the groups' rates."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
        group.pop("initial_lr", None)
