"""Activations computed again in the backward pass, in one tower alone or in both.

In: a model whose layers transformers has switched to it, and the towers that are to keep it. Out:
the other towers' layers switched back. Which tower gives back more memory for its time depends on
the packs and on the sizes of both: `smolvlm plan` says what each choice takes.
"""

from collections.abc import Collection
from typing import Any, cast

from torch import nn

from smolvlm.config.checkpointing import Checkpointing
from smolvlm.model.towers import Tower, modules_of

WITH_LAYERS: tuple[Tower, ...] = ("vision_tower", "language_model")
"""The connector is a single product."""


def checkpointed_towers(choice: Checkpointing) -> tuple[Tower, ...]:
    """Return the towers that compute their activations again."""
    if isinstance(choice, bool):
        return WITH_LAYERS if choice else ()
    return (choice,)


def keep_activations(model: nn.Module, *, but_of: Collection[Tower]) -> None:
    """Switch activation checkpointing off in all towers but some.

    Args:
        model: of the family.
        but_of: the towers that are left as they are.
    """
    for tower in WITH_LAYERS:
        for name in modules_of(tower) if tower not in but_of else ():
            for module in model.get_submodule(name).modules():
                if hasattr(module, "gradient_checkpointing"):
                    cast(Any, module).gradient_checkpointing = False
