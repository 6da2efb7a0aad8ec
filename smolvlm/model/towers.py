"""Which tower a parameter belongs to: the one answer to that question.

The three parts of the family: the vision tower, the connector, and the language model, to which embeddings and output
head belong. An adapter belongs to the tower whose layers it stands in; a tower that has one trains it and nothing else.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

from torch import nn

Tower = Literal["vision_tower", "connector", "language_model"]
TOWERS: tuple[Tower, ...] = get_args(Tower)

_PREFIXES: dict[str, Tower] = {
    "model.vision_model.": "vision_tower",
    "model.connector.": "connector",
    "model.text_model.": "language_model",
    "lm_head.": "language_model",
}


def tower_of(name: str) -> Tower:
    """Return the tower of a parameter by its full name.

    Raises:
        ValueError: the name belongs to no tower of the family.
    """
    for prefix, tower in _PREFIXES.items():
        if name.startswith(prefix):
            return tower
    raise ValueError(f"parameter {name} belongs to none of {', '.join(_PREFIXES)}")


def parameters_of(model: nn.Module, tower: Tower) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (name, parameter) of one tower."""
    return ((name, value) for name, value in model.named_parameters() if tower_of(name) == tower)


def is_adapter(name: str) -> bool:
    """Say whether a parameter is an adapter's, by its full name."""
    return ".lora_" in name


def adapted_towers(model: nn.Module) -> frozenset[Tower]:
    """Return the towers that have an adapter."""
    return frozenset(tower_of(name) for name, _ in model.named_parameters() if is_adapter(name))


def learning_rates_of(model: nn.Module, learning_rates: Mapping[Tower, float]) -> dict[str, float]:
    """Return each parameter's learning rate by its name; 0 is frozen.

    Args:
        learning_rates: of each tower: its adapter's where it has one, and of all its weights elsewhere.
    """
    adapted = adapted_towers(model)
    return {
        name: learning_rates[tower_of(name)] if is_adapter(name) or tower_of(name) not in adapted else 0.0
        for name, _ in model.named_parameters()
    }


def freeze(model: nn.Module, learning_rates: Mapping[Tower, float]) -> None:
    """Let exactly the towers with a learning rate above 0 train, those that have an adapter through it alone."""
    rates = learning_rates_of(model, learning_rates)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(rates[name] > 0)
