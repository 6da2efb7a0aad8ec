"""Which parameter trains, and at which rate: the one answer to that question.

In: rates by tower and by kind of parameter, and the parts of towers that are frozen. Out: any
parameter's rate by its full name; 0 is frozen. The optimizer's groups, their check on the live
optimizer and the printed table all ask here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import nn

from smolvlm.checkpoints.frozen_parts import FrozenPart
from smolvlm.model.towers import Tower, is_adapter, is_token_rows, tower_of

Kind = Literal["full", "adapter", "token_rows"]
"""A checkpoint's own weights, those that an adapter adds to it, or rows of single tokens."""
KINDS: tuple[Kind, ...] = get_args(Kind)


def kind_of(name: str) -> Kind:
    """Return what a parameter is, by its full name."""
    if is_token_rows(name):
        return "token_rows"
    return "adapter" if is_adapter(name) else "full"


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningRates:
    """The learning rate of every parameter; a tower that is not named is frozen."""

    full: Mapping[Tower, float] = field(default_factory=dict)
    """Of towers' own weights."""
    adapter: Mapping[Tower, float] = field(default_factory=dict)
    """Of towers' adapters."""
    token_rows: float = 0.0
    """Of rows that train by themselves."""
    frozen: tuple[FrozenPart, ...] = ()
    """Own weights that stay as they are in spite of their tower's rate."""

    def of(self, name: str) -> float:
        """Return a parameter's learning rate by its full name; 0 is frozen."""
        tower, kind = tower_of(name), kind_of(name)
        if kind == "token_rows":
            return self.token_rows
        if kind == "adapter":
            return self.adapter.get(tower, 0.0)
        is_frozen = any(name.startswith(part.prefixes) for part in self.frozen)
        return 0.0 if is_frozen else self.full.get(tower, 0.0)

    def of_tower(self, tower: Tower) -> float:
        """Return the rate of what trains in a tower, 0 where nothing does.

        It is the adapter's, else the weights', else the token rows'.
        """
        rows = self.token_rows if tower == "language_model" else 0.0
        return self.adapter.get(tower, 0.0) or self.full.get(tower, 0.0) or rows


def freeze(model: nn.Module, rates: LearningRates) -> None:
    """Let exactly those parameters train that have a rate above 0."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(rates.of(name) > 0)
