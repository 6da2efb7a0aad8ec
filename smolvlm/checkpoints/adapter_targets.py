"""Which layers of a tower get an adapter: full names, so that a pattern for one tower never hits
another's layers.

(The names that one usually gives peft, such as `q_proj`, stand in the vision tower and in the
language model.)
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from smolvlm.config.adapters import AdapterConfig
from smolvlm.errors import ConfigError
from smolvlm.model.towers import SHORT_NAME, Tower, tower_of


def target_layers(model: nn.Module, tower: Tower, patterns: Sequence[str] | None) -> list[str]:
    """Return the full names of the layers of one tower that get an adapter, in the model's order.

    Args:
        patterns: full names, `*` and `[...]` as in file names; None is every linear layer but the
            output head.

    Raises:
        ConfigError: a pattern hits no layer of the tower, or a layer that is neither linear nor an
            embedding.
    """
    modules = {name: module for name, module in model.named_modules() if hasattr(module, "weight")}
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    candidates = [name for name in linear if tower_of(f"{name}.weight") == tower]
    if patterns is None:
        return [name for name in candidates if name != "lm_head"]
    hit: set[str] = set()
    for pattern in patterns:
        matches = [name for name in modules if fnmatchcase(name, pattern)]
        inside = [name for name in matches if tower_of(f"{name}.weight") == tower]
        if not inside:
            raise _no_layer(pattern, tower, elsewhere=matches, example=candidates[0])
        hit |= set(inside)
    for name in sorted(hit):
        if not isinstance(modules[name], nn.Linear | nn.Embedding):
            class_name = type(modules[name]).__name__
            fix = f"name linear layers, such as {candidates[0]}"
            raise ConfigError(
                f"{name} is a {class_name}, which takes no adapter",
                where="adapters: targets",
                fix=fix,
            )
    return [name for name in modules if name in hit]


def _no_layer(pattern: str, tower: Tower, *, elsewhere: Sequence[str], example: str) -> ConfigError:
    where = f", but {len(elsewhere)} of another tower" if elsewhere else ""
    return ConfigError(
        f"`{pattern}` names no layer of the {tower.replace('_', ' ')}{where}",
        where=f"adapters.{SHORT_NAME[tower]}.targets",
        fix=f"write a layer's full name, `*` standing for anything: {example}, "
        f"*.{example.rsplit('.', 1)[-1]}",
    )


def check_pissa(
    model: nn.Module, layers: Mapping[Tower, Sequence[str]], adapters: Mapping[Tower, AdapterConfig]
) -> None:
    """Raise ConfigError where a layer's weights cannot be taken apart as PiSSA does."""
    for tower, names in layers.items():
        for name in names:
            layer: Any = model.get_submodule(name)
            if isinstance(layer, nn.Embedding):
                fix = "leave it out of the targets, or choose another type"
                raise ConfigError(
                    f"pissa knows no embedding ({name})", where="adapters: targets", fix=fix
                )
            if layer.weight.dtype != torch.float32:
                what = (
                    "pissa takes the base's weights apart, which bfloat16 weights would not survive"
                )
                raise ConfigError(
                    what, where="adapters", fix="set model.dtype: float32, or choose another type"
                )
            if adapters[tower].r > min(layer.weight.shape):
                what = (
                    f"rank {adapters[tower].r} is more than {name} has ({min(layer.weight.shape)})"
                )
                raise ConfigError(
                    what, where="adapters", fix="lower r, or choose another type than pissa"
                )
