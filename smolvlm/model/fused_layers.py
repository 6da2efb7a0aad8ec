"""Language layers in fewer, larger GPU operations: norm, rotary positions and the gated MLP.

In: a loaded model and three functions that each do in one kernel what the stock layers do in
several. Out: the same model, whose layers call them. Weights, names and what is saved stay as they
are: the modules' classes change, to subclasses with another forward. The loss is not touched, and
neither is the tower, whose LayerNorm is one kernel already.

The functions are those of the package liger-kernel (`liger_kernels`). The rotary function is a
global of the module that holds the stock attention (transformers 5.23), so that layer's forward is
called with globals of its own; tests/model/test_fused_layers.py fails where this moves.
"""

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from types import FunctionType
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaMLP, LlamaRMSNorm

from smolvlm.errors import ConfigError

_WHERE = "train.use_liger_kernel=true"


@dataclass(frozen=True, kw_only=True, slots=True)
class FusedKernels:
    """What the layers call."""

    rms_norm: Callable[[Float[Tensor, "... width"], Float[Tensor, " width"], float], Tensor]
    """States, weight and epsilon to normalised states, in the states' type."""
    rotate: Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
    """Queries and keys (batch, heads, seq, head), cosines and sines (batch, seq, head) to rotated
    queries and keys; may overwrite the first two."""
    gate: Callable[[Tensor, Tensor], Tensor]
    """(a, b) to silu(a) * b."""


def fuse_layers(model: nn.Module, kernels: FusedKernels) -> int:
    """Let a model's language layers call these functions; return how many modules do.

    Args:
        model: its modules that are exactly the stock Llama ones change; any other stays.
        kernels: for the device that the model computes on.

    Raises:
        ConfigError: it has none, or its MLP has another activation than silu.
    """
    changed = 0
    modules: list[Any] = list(model.modules())
    for module in modules:
        kind = type(module)
        if kind is LlamaMLP and module.config.hidden_act not in ("silu", "swish"):
            raise ConfigError(
                f"the language model's activation is {module.config.hidden_act}, and the kernels "
                "know silu",
                where=_WHERE,
                fix="take the setting out",
            )
        if kind in _FUSED:
            module.__class__ = _FUSED[kind]
            module.kernels = kernels
            changed += 1
    if not changed:
        raise ConfigError(
            "the language model has none of the layers that the kernels are for",
            where=_WHERE,
            fix="take the setting out",
        )
    return changed


def liger_kernels(device_type: str) -> FusedKernels:
    """Return the functions of the package liger-kernel.

    Args:
        device_type: that the model computes on.

    Raises:
        ConfigError: it is not installed, or the device is no GPU. (Where Triton interprets its
            kernels, `TRITON_INTERPRET=1`, any device is one.)
    """
    if find_spec("liger_kernel") is None:
        raise ConfigError(
            "the package liger-kernel is not installed",
            where=_WHERE,
            fix="pip install liger-kernel, or take the setting out",
        )
    if device_type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ConfigError(
            f"its kernels are for CUDA, and the run trains on {device_type}",
            where=_WHERE,
            fix="take the setting out",
        )
    from liger_kernel.ops.rms_norm import (  # pyright: ignore[reportMissingImports] - an extra
        LigerRMSNormFunction,
    )
    from liger_kernel.ops.rope import (  # pyright: ignore[reportMissingImports]
        LigerRopeFunction,
    )
    from liger_kernel.ops.swiglu import (  # pyright: ignore[reportMissingImports]
        LigerSiLUMulFunction,
    )

    def rms_norm(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        # offset 0, Llama's casts, and a gradient that does not overwrite the one that arrives.
        return LigerRMSNormFunction.apply(states, weight, epsilon, 0.0, "llama", False)

    def rotate(
        queries: Tensor, keys: Tensor, cosines: Tensor, sines: Tensor
    ) -> tuple[Tensor, Tensor]:
        return LigerRopeFunction.apply(queries, keys, cosines, sines)

    def gate(first: Tensor, second: Tensor) -> Tensor:
        return LigerSiLUMulFunction.apply(first, second)

    return FusedKernels(rms_norm=rms_norm, rotate=rotate, gate=gate)


class _FusedRMSNorm(LlamaRMSNorm):
    kernels: FusedKernels

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.kernels.rms_norm(hidden_states, self.weight, self.variance_epsilon)


class _FusedMLP(LlamaMLP):
    kernels: FusedKernels

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.kernels.gate(self.gate_proj(x), self.up_proj(x)))


class _FusedAttention(LlamaAttention):
    kernels: FusedKernels

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return _forward_with(self.kernels.rotate)(self, *args, **kwargs)


_FUSED: dict[type[nn.Module], Any] = {
    LlamaRMSNorm: _FusedRMSNorm,
    LlamaMLP: _FusedMLP,
    LlamaAttention: _FusedAttention,
}


def _forward_with(rotate: Callable[..., Any]) -> FunctionType:
    """Return the stock attention's forward with another rotary function."""
    stock: Any = inspect.unwrap(LlamaAttention.forward)
    names = {**stock.__globals__, "apply_rotary_pos_emb": rotate}
    made = FunctionType(stock.__code__, names, closure=stock.__closure__)
    made.__kwdefaults__, made.__defaults__ = stock.__kwdefaults__, stock.__defaults__
    return made
