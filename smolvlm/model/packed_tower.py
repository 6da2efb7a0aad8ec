"""A frozen vision tower's layers on a CPU, with weights laid out for oneDNN.

In: a stock tower that nothing trains, and embedded patches. Out: what its encoder returns for them.
The stock layers lay their weights out anew in each call, round them to bfloat16 in each call under
autocast, and write the activation function's input to memory and read it back. Here the weights are
laid out once, for the type that products are computed in, and the activation function is part of
the product before it. What is added up from layer to layer stays float32 also where products are
bfloat16. Float32 features are within 1e-6 of the stock tower's.

The copy belongs to the weights it was made of: `is_current` says whether they are still the same.
"""

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from smolvlm.model.attention.dense import attend
from smolvlm.model.cpu_choices import current_choices
from smolvlm.model.plain_modules import is_plainly_called

_ALGORITHMS = {"gelu_pytorch_tanh": "tanh", "gelu": "none"}
"""How oneDNN calls the activation functions of published towers."""
_LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
_LINEARS_OF_MLP = ("mlp.fc1", "mlp.fc2")
_NORMS = ("layer_norm1", "layer_norm2")
_SAMPLE_STEP = 4099
"""Of the values that tell whether a weight is still the same: a prime, so that all columns come."""


PATCHES_PER_CALL = 2048
"""Rows of a product that weights are laid out for; results do not depend on it."""

_MADE: MutableMapping[nn.Module, "PackedTower"] = WeakKeyDictionary()
"""By tower, for as long as it lives; no part of the model, so that nothing saves or copies it."""


def packed_tower(tower: nn.Module, dtype: torch.dtype) -> "PackedTower | None":
    """Return a frozen tower's layers laid out for this CPU; None where that cannot be done.

    They are kept for as long as the tower's weights stay as they are.

    Args:
        tower: the stock tower.
        dtype: of its features; products are in autocast's where that is on.
    """
    if not current_choices().packed_tower or next(tower.parameters()).device.type != "cpu":
        return None
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
    kept = _MADE.get(tower)
    if kept is not None and kept.is_current(tower, dtype):
        return kept
    _MADE.pop(tower, None)
    if not can_pack(tower, dtype):
        return None
    made = PackedTower(tower, dtype, patches_per_call=PATCHES_PER_CALL)
    _MADE[tower] = made
    return made


def can_pack(tower: nn.Module, dtype: torch.dtype) -> bool:
    """Say whether a tower is made of layers that `PackedTower` computes, on this CPU.

    Args:
        tower: nothing of it may train.
        dtype: that products are computed in.
    """
    if not _has_operations(dtype) or _algorithm(tower) is None:
        return False
    # Not an adapter or a quantised layer, or one that is watched or whose weight is cut up.
    for layer in cast("Any", tower).encoder.layers:
        for name in (*_LINEARS, *_LINEARS_OF_MLP):
            linear = layer.get_submodule(name)
            if type(linear) is not nn.Linear or not is_plainly_called(linear):
                return False
        if not all(is_plainly_called(layer.get_submodule(name)) for name in _NORMS):
            return False
        if not is_plainly_called(layer):
            return False
    return not any(parameter.requires_grad for parameter in tower.parameters())


def _has_operations(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        return False
    operations = torch.ops.mkldnn
    if not hasattr(operations, "_reorder_linear_weight"):
        return False
    if dtype == torch.bfloat16:
        return bool(operations._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _algorithm(tower: nn.Module) -> str | None:
    return _ALGORITHMS.get(cast("Any", tower).config.hidden_act)


@dataclass(frozen=True, slots=True)
class _Linear:
    weight: Tensor
    bias: Tensor | None

    def __call__(self, states: Tensor, *, activation: str | None = None) -> Tensor:
        kind = "none" if activation is None else "gelu"
        return torch.ops.mkldnn._linear_pointwise(
            states, self.weight, self.bias, kind, [], activation or ""
        )


class _Layer:
    def __init__(self, layer: nn.Module, dtype: torch.dtype, *, rows: int) -> None:
        def packed(name: str) -> _Linear:
            linear = cast("nn.Linear", layer.get_submodule(name))
            weight = linear.weight.detach().to(dtype).contiguous()
            bias = None if linear.bias is None else linear.bias.detach().to(dtype)
            return _Linear(torch.ops.mkldnn._reorder_linear_weight(weight, rows), bias)

        self.queries, self.keys, self.values, self.output = map(packed, _LINEARS)
        self.first, self.second = map(packed, _LINEARS_OF_MLP)
        self.norms = [cast("nn.LayerNorm", layer.get_submodule(name)) for name in _NORMS]
        attention = cast("Any", layer).self_attn
        self.head_width, self.scale = attention.head_dim, attention.scale


class PackedTower:
    """The encoder of a frozen tower."""

    def __init__(self, tower: nn.Module, dtype: torch.dtype, *, patches_per_call: int) -> None:
        """Lay out a tower's weights; `can_pack` has said that it can be done.

        Args:
            tower: stock tower.
            dtype: that products are computed in, bfloat16 or float32.
            patches_per_call: how many rows products will have at most.
        """
        self.dtype = dtype
        algorithm = _algorithm(tower)
        assert algorithm is not None
        self._algorithm = algorithm
        self._made_of = _Weights(tower)
        self._layers = [
            _Layer(layer, dtype, rows=patches_per_call)
            for layer in cast("Any", tower).encoder.layers
        ]

    def is_current(self, tower: nn.Module, dtype: torch.dtype) -> bool:
        """Say whether this is a copy of a tower's weights as they are now."""
        return dtype == self.dtype and self._made_of.are(tower)

    @torch.no_grad()
    def encode(
        self, embedded: Float[Tensor, "tile patch width"]
    ) -> Float[Tensor, "tile patch width"]:
        """Return the last layer's output, in the type of the input."""
        with torch.autocast("cpu", enabled=False):
            states = embedded.float().clone()
            for layer in self._layers:
                states += self._attended(layer, _normed(layer.norms[0], states).to(self.dtype))
                normed = _normed(layer.norms[1], states).to(self.dtype)
                states += layer.second(layer.first(normed, activation=self._algorithm))
        return states.to(embedded.dtype)

    @staticmethod
    def _attended(layer: _Layer, states: Tensor) -> Tensor:
        heads = states.unflatten(-1, (-1, layer.head_width)).shape[:-1]
        query, key, value = (
            linear(states).view(*heads, layer.head_width).transpose(1, 2)
            for linear in (layer.queries, layer.keys, layer.values)
        )
        attended = attend(query, key, value, scale=layer.scale)
        return layer.output(attended.transpose(1, 2).reshape(states.shape))


def _normed(norm: nn.LayerNorm, states: Tensor) -> Tensor:
    """Return a norm's output in float32, whatever its weights are in."""
    weight, bias = (None if value is None else value.float() for value in (norm.weight, norm.bias))
    return nn.functional.layer_norm(states, norm.normalized_shape, weight, bias, norm.eps)


class _Weights:
    """What tells whether a tower's weights are still those that were copied.

    Writing into a parameter counts its version up; writing into its `data` does not, so some of
    the values are looked at too.
    """

    def __init__(self, tower: nn.Module) -> None:
        self._marks = [_mark(parameter) for parameter in tower.parameters()]
        self._samples = [_sample(parameter).clone() for parameter in tower.parameters()]

    def are(self, tower: nn.Module) -> bool:
        parameters = list(tower.parameters())
        return [_mark(parameter) for parameter in parameters] == self._marks and all(
            torch.equal(_sample(parameter), sample)
            for parameter, sample in zip(parameters, self._samples, strict=True)
        )


def _mark(parameter: Tensor) -> tuple[Any, ...]:
    return parameter.data_ptr(), parameter._version, parameter.dtype, parameter.shape


def _sample(parameter: Tensor) -> Tensor:
    return parameter.detach().flatten()[::_SAMPLE_STEP]
