"""FSDP2: each rank holds a share of the weights, their gradients and the optimizer's moments.

In: a whole model on each rank. Out: the same model, its parameters cut into shards by torch's
`fully_shard`; a layer is gathered when it is called and freed behind it. accelerate would do the
same on GPUs and nothing on CPUs, without a word, so it is not asked.

- A unit is a whole layer of the language model or of the tower. What is left (embeddings, output
  head, connector, norms) is one unit more, gathered for the length of a step: the head is called
  in chunks, on each rank another number of times.
- A frozen tower stays whole on every rank: how often a rank runs it depends on its tiles and on
  what is cached, and a sharded one would have to be run equally often by all. It has no gradient
  and no moments.
- Where ranks go their own ways (evaluation, generation), `whole_weights` holds everything on every
  rank.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from smolvlm.errors import ConfigError
from smolvlm.model.towers import parameters_of
from smolvlm.protocols import VisionLanguageModel


def shard(model: VisionLanguageModel, device: torch.device) -> None:
    """Cut a model into shards, in place, over all ranks.

    Args:
        model: the same on every rank, on its device, parameters already frozen or not.
        device: of this rank.
    """
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    tower = dict(parameters_of(model, "vision_tower"))
    is_frozen = not any(value.requires_grad for value in tower.values())
    layers = [*model.model.text_model.layers]
    if not is_frozen:
        layers += model.model.vision_model.encoder.layers
    for layer in layers:
        fully_shard(layer, mesh=mesh)
    ignored = set(tower.values()) if is_frozen else None
    fully_shard(model, mesh=mesh, reshard_after_forward=False, ignored_params=ignored)


def is_sharded(model: nn.Module) -> bool:
    """Say whether a model's parameters are in shards."""
    return isinstance(model, FSDPModule)


def check_shards(model: nn.Module, *, num_ranks: int) -> str:
    """Return a line on what is in shards.

    Args:
        model: live, as it trains.
        num_ranks: that share it.

    Raises:
        ConfigError: a parameter that trains is whole, or is shared by other ranks than all.
    """
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    whole = [name for name, value in trained.items() if _ranks_of(value) != num_ranks]
    if whole:
        raise ConfigError(
            f"{len(whole)} of {len(trained)} parameters that train are not shared by "
            f"{num_ranks} ranks, {whole[0]} among them",
            where="train.engine=fsdp2",
            fix="take out what wraps the model, or train with train.engine: ddp",
        )
    parameters = list(model.parameters())
    num_sharded = sum(isinstance(value, DTensor) for value in parameters)
    local = sum(local_of(value).numel() * value.element_size() for value in parameters)
    return (
        f"engine fsdp2: {num_sharded} of {len(parameters)} parameters in shards over {num_ranks} "
        f"ranks, {local / 1e6:,.1f} MB of weights on this one"
    )


def _ranks_of(value: Tensor) -> int:
    return value.device_mesh.size() if isinstance(value, DTensor) else 1


def local_of(value: Tensor) -> Tensor:
    """Return what this rank holds of a tensor: its shard, or all of it."""
    return value.to_local() if isinstance(value, DTensor) else value


def gathered(value: Any) -> Any:
    """Return a tensor whole, and anything else as it is; every rank calls it."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a whole tensor cut as a parameter is; without a communication."""
    if not isinstance(parameter, DTensor):
        return value
    mesh = cast(DeviceMesh, parameter.device_mesh)
    whole = value.to(parameter.device)
    return distribute_tensor(whole, mesh, parameter.placements, src_data_rank=None)


def whole_state(model: nn.Module, *, keeps: bool) -> dict[str, Tensor]:
    """Return a sharded model's state, whole and on the CPU; every rank calls it.

    Args:
        model: in shards.
        keeps: whether this rank wants it; the others get nothing, and keep one tensor at a time.
    """
    state: dict[str, Tensor] = {}
    for name, value in model.state_dict().items():
        whole = gathered(value)
        if keeps:
            state[name] = whole.detach().cpu()
    return state


def load_whole_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy whole tensors into a sharded model; names that it does not have are passed over."""
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name in state:
                value.copy_(like(state[name].to(value.dtype), value))


@contextmanager
def whole_weights(model: nn.Module) -> Iterator[None]:
    """Hold all weights of a sharded model on every rank; a plain model is left as it is.

    Every rank opens and closes it; in between none waits for another.
    """
    units = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for unit in units:
        unit.set_reshard_after_forward(False, recurse=False)
        unit.unshard()
    try:
        yield
    finally:
        for unit in units:
            unit.set_reshard_after_forward(unit is not model, recurse=False)
            unit.reshard()
