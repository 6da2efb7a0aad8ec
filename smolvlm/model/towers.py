"""Which tower a parameter belongs to: the one answer to that question.

The three parts of the family: the vision tower, the connector, and the language model, to which
embeddings and output head belong. An adapter belongs to the tower whose layers it stands in. Which
of them trains: `learning_rates.py`.
"""

from collections.abc import Iterator, Mapping
from typing import Literal, get_args

from torch import nn

from smolvlm.config.adapters import PartName

Tower = Literal["vision_tower", "connector", "language_model"]
TOWERS: tuple[Tower, ...] = get_args(Tower)
TOWER_OF: Mapping[PartName, Tower] = {
    "vision": "vision_tower",
    "connector": "connector",
    "language": "language_model",
}
"""The run file calls them by the short names."""
SHORT_NAME: Mapping[Tower, PartName] = {tower: part for part, tower in TOWER_OF.items()}

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


def modules_of(tower: Tower) -> list[str]:
    """Return the full names of the modules that a tower is."""
    return [prefix.removesuffix(".") for prefix, part in _PREFIXES.items() if part == tower]


def parameters_of(model: nn.Module, tower: Tower) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield (name, parameter) of one tower."""
    return ((name, value) for name, value in model.named_parameters() if tower_of(name) == tower)


def is_adapter(name: str) -> bool:
    """Say whether a parameter is an adapter's, by its full name."""
    return ".lora_" in name or is_token_rows(name)


def is_token_rows(name: str) -> bool:
    """Say by its full name whether a parameter is rows of single tokens that train alone."""
    return ".trainable_tokens_delta" in name
