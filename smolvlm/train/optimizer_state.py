"""An optimizer's state by the names of its parameters, whole: what a checkpoint holds.

torch numbers parameters as the groups list them, and cuts moments as the engine cut weights. By
name and whole, a state that one engine saved on so many ranks is read by another on any number.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from smolvlm.errors import ConfigError
from smolvlm.train.engines.sharding import gathered, like

FILE_NAME = "optimizer.pt"


def named_state(
    model: nn.Module, optimizer: Optimizer, *, keeps: bool, copies: bool = False
) -> dict[str, Any]:
    """Return an optimizer's state by names, on the CPU; every rank calls it.

    Args:
        model: whose parameters it steps.
        optimizer: torch's, without a wrapper.
        keeps: whether this rank wants it; the others get an empty one.
        copies: whether the next step must not change it.
    """
    names = {id(value): name for name, value in model.named_parameters()}
    state: dict[str, dict[str, Any]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            values = optimizer.state.get(parameter, {})
            whole = {
                key: _whole(value, copies=copies and keeps) if isinstance(value, Tensor) else value
                for key, value in values.items()
            }
            if keeps and whole:
                state[names[id(parameter)]] = whole
    groups = [
        {**group, "params": [names[id(value)] for value in group["params"]]}
        for group in optimizer.param_groups
    ]
    return {"state": state, "param_groups": groups} if keeps else {}


def num_state_bytes(optimizer: Optimizer) -> int:
    """Return how large an optimizer's state is, whole."""
    return sum(
        value.numel() * value.element_size()
        for values in optimizer.state.values()
        for value in values.values()
        if isinstance(value, Tensor)
    )


def _whole(value: Tensor, *, copies: bool) -> Tensor:
    whole = gathered(value)
    is_live = whole is value and value.device.type == "cpu"
    return whole.detach().clone() if copies and is_live else whole.detach().cpu()


def load_named_state(model: nn.Module, optimizer: Optimizer, saved: Mapping[str, Any]) -> None:
    """Give an optimizer the state that `named_state` returned.

    Args:
        model: whose parameters it steps, in shards or whole.
        optimizer: with the same groups; not yet stepped.
        saved: what was saved; numbers in place of names, as earlier versions wrote them, mean the
            order of the groups.

    Raises:
        ConfigError: it is of other parameters.
    """
    parameters = dict(model.named_parameters())
    names = {id(value): name for name, value in parameters.items()}
    live = [[names[id(value)] for value in group["params"]] for group in optimizer.param_groups]
    numbers = {name: number for number, name in enumerate(name for names in live for name in names)}
    written = [list(group["params"]) for group in saved["param_groups"]]
    if all(isinstance(name, int) for names in written for name in names):
        flat = [name for names in live for name in names]
        state = {flat[number]: values for number, values in saved["state"].items()}
    else:
        state = dict(saved["state"])
        if written != live:
            raise ConfigError("it steps other parameters, or groups them otherwise")
    by_number: dict[int, dict[str, Any]] = {}
    for name, values in state.items():
        parameter = parameters[name]
        by_number[numbers[name]] = {
            key: like(value, parameter) if _is_shaped(value, parameter) else value
            for key, value in values.items()
        }
    groups, start = [], 0
    for names_of_group, group in zip(live, saved["param_groups"], strict=True):
        groups.append({**group, "params": list(range(start, start + len(names_of_group)))})
        start += len(names_of_group)
    optimizer.load_state_dict({"state": by_number, "param_groups": groups})


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint holds of its optimizer; numbers and words alone are read."""
    return torch.load(checkpoint / FILE_NAME, map_location="cpu", weights_only=True)


def _is_shaped(value: object, parameter: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == parameter.shape and value.dim() > 0
