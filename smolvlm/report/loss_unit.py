"""What the loss of a run is, and in which unit: one a learned token, or one a pair of answers.

In: log lines, and the settings as `run.yaml` holds them. Out: a `LossUnit`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml

from smolvlm.report.files import Metrics


@dataclass(frozen=True, kw_only=True, slots=True)
class LossUnit:
    """What a loss is called, and what it is measured in."""

    name: str
    unit: str
    meaning: str = ""
    """A sentence for those who meet it first."""


TOKEN_LOSS = LossUnit(name="loss", unit="nats a learned token")
_AT_FIRST = "ln 2 = 0.693 where the model tells the two answers apart as the reference does"
PAIR_LOSSES: Mapping[str, LossUnit] = {
    "sigmoid": LossUnit(
        name="DPO loss",
        unit="nats a pair",
        meaning=f"The loss is how surprising the better answer of a pair is: {_AT_FIRST}.",
    ),
    "robust": LossUnit(name="robust DPO loss", unit="nats a pair"),
    "hinge": LossUnit(name="hinge loss", unit="a pair"),
    "ipo": LossUnit(name="IPO loss", unit="a pair"),
    "simpo": LossUnit(name="SimPO loss", unit="nats a pair"),
    "orpo": LossUnit(name="ORPO loss", unit="a pair"),
}
"""By `train.loss_type`. Those without nats are no logarithm of a probability, or a sum with one."""
ANY_PAIR_LOSS = LossUnit(name="preference loss", unit="a pair")


def loss_unit(train: Sequence[Metrics], settings: str) -> LossUnit:
    """Return the unit of a run's loss.

    Args:
        train: log lines; those of preference training hold rewards.
        settings: text of `run.yaml`; may be empty, or not be YAML.
    """
    if not is_preference(train):
        return TOKEN_LOSS
    return PAIR_LOSSES.get(str(_loss_type(settings)), ANY_PAIR_LOSS)


def is_preference(train: Sequence[Metrics]) -> bool:
    """Say whether log lines are those of preference training."""
    return any("rewards_margin" in line for line in train)


def _loss_type(settings: str) -> object:
    """Return `train.loss_type`; None where it, or its section, is not there or is mixed with the
    answer's own loss."""
    try:
        content = yaml.safe_load(settings)
    except yaml.YAMLError:
        return None
    train = content.get("train") if isinstance(content, dict) else None
    if not isinstance(train, dict):
        return None
    method = train.get("method")
    chosen = method if isinstance(method, dict) else train
    return None if chosen.get("sft_weight") else chosen.get("loss_type")
