"""The other choices of `train.activation_checkpointing` that a run has, and what it would be with
each."""

from dataclasses import dataclass

from smolvlm.config.checkpointing import Checkpointing
from smolvlm.config.schema import RunConfig
from smolvlm.plan.memory import MemoryPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherCheckpointing:
    """What a run would be with another `train.activation_checkpointing`."""

    checkpointing: Checkpointing
    memory: MemoryPlan
    total_s: float
    """Of the run, as in its `TimePlan`."""


def other_choices(config: RunConfig) -> tuple[Checkpointing, ...]:
    """Return the other values of `train.activation_checkpointing` that would make a difference; a
    frozen tower keeps no activations."""
    chosen = config.train.activation_checkpointing
    if config.rate_of("vision"):
        every: tuple[Checkpointing, ...] = (False, "language_model", "vision_tower", True)
        return tuple(choice for choice in every if choice != chosen)
    return (False,) if chosen else (True,)


def with_checkpointing(config: RunConfig, choice: Checkpointing) -> RunConfig:
    """Return the settings with another choice of activation checkpointing."""
    train = config.train.model_copy(update={"activation_checkpointing": choice})
    return config.model_copy(update={"train": train})
