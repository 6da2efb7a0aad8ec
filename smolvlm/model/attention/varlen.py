"""Attention over packs of plain conversations on CUDA: torch's FlashAttention for sequences of
different lengths.

In: `scope_end`. Out: a `VarlenPlan`, the borders between conversations, where each of them is plain
causal within itself; a pack with branches goes to `flex.py`, since this kernel knows no tree. The
plan is made in the loader, the length of the longest conversation with it, so that nothing is read
back from the device. Asked for by name (`model.attention: varlen`): float32 is beyond the kernel,
and it has not been measured beside flex.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import cast

import numpy as np
import torch
from jaxtyping import Int, Int32
from torch import Tensor

from smolvlm.errors import ConfigError
from smolvlm.model.attention.flex import plan_flex
from smolvlm.model.attention.plan import AttentionPlan
from smolvlm.protocols import TextConfig

MAX_HEAD_SIZE = 256
HEAD_SIZE_MULTIPLE = 8
MIN_CAPABILITY = (8, 0)
_WHERE = "model.attention=varlen"
_NEEDED = ("scale", "window_size", "enable_gqa")
"""Parameters of `varlen_attn` that earlier versions of torch lack."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VarlenPlan:
    """The conversations of one pack."""

    borders: Int32[Tensor, " border"]
    """Where each begins, and behind them the pack's length."""
    longest: int
    """Tokens of the longest one."""

    def tensors(self) -> tuple[Tensor, ...]:
        return (self.borders,)

    def pin_memory(self) -> "VarlenPlan":
        return VarlenPlan(borders=self.borders.pin_memory(), longest=self.longest)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "VarlenPlan":
        borders = self.borders.to(device, non_blocking=non_blocking)
        return VarlenPlan(borders=borders, longest=self.longest)

    def over(self, scope_end: Int[Tensor, " seq"]) -> "VarlenScope":  # noqa: ARG002 - the protocol's
        return VarlenScope(self.borders, self.longest)


def plan_varlen(scope_end: Int[np.ndarray, " seq"]) -> AttentionPlan:
    """Return a pack's conversations, or the block lists of `flex.py` where one of them branches.

    Where none does, the ends are those of the conversations, each as often as it has tokens.
    """
    ends = np.unique(scope_end)
    lengths = np.diff(ends, prepend=0)
    if not np.array_equal(np.repeat(ends, lengths), scope_end):
        return plan_flex(scope_end)
    borders = torch.from_numpy(np.concatenate([[0], ends]).astype(np.int32))
    return VarlenPlan(borders=borders, longest=int(lengths.max()))


@dataclass(frozen=True, slots=True)
class VarlenScope:
    """A pack of plain conversations on CUDA."""

    borders: Int32[Tensor, " border"]
    longest: int

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, dropout: float
    ) -> Tensor:
        if dropout:
            raise ValueError(
                "varlen_attn has no dropout; set attention_dropout to 0 in the text config"
            )
        attended = varlen_kernel()(
            *(states[0].transpose(0, 1) for states in (query, key, value)),
            self.borders,
            self.borders,
            self.longest,
            self.longest,
            scale=scale,
            window_size=(-1, 0),  # causal
            enable_gqa=query.shape[1] != key.shape[1],
        )
        return attended.transpose(0, 1)[None]


@cache
def varlen_kernel() -> Callable[..., Tensor]:
    """Return torch's `varlen_attn`."""
    from torch.nn.attention.varlen import varlen_attn

    return cast("Callable[..., Tensor]", varlen_attn)  # a tensor, where nothing else is asked for


def check_varlen(device_type: str, *, is_half: bool) -> None:
    """Refuse a place where the kernel does not run.

    Args:
        device_type: that the run trains on.
        is_half: whether products are computed in bfloat16 or float16.

    Raises:
        ConfigError: with what to do.
    """
    if device_type != "cuda":
        what, fix = f"it is for CUDA, and the run trains on {device_type}", "take the setting out"
    elif not is_half:
        what = "FlashAttention computes in bfloat16 or float16, and the run in float32"
        fix = "set train.bf16: true, or take the setting out"
    elif torch.cuda.is_available() and torch.cuda.get_device_capability() < MIN_CAPABILITY:
        what = (
            f"FlashAttention needs an Ampere GPU or a later one, not {torch.cuda.get_device_name()}"
        )
        fix = "take the setting out"
    elif not _is_in_torch():
        what = f"torch {torch.__version__} has no such attention that this program can use"
        fix = "install torch 2.14 or later, or take the setting out"
    else:
        return
    raise ConfigError(what, where=_WHERE, fix=fix)


def check_head_size(config: TextConfig) -> None:
    """Refuse a language model whose heads the kernel does not take; raises ConfigError."""
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size > MAX_HEAD_SIZE or size % HEAD_SIZE_MULTIPLE:
        raise ConfigError(
            f"the language model's heads have {size} dimensions; FlashAttention takes multiples of "
            f"{HEAD_SIZE_MULTIPLE} up to {MAX_HEAD_SIZE}",
            where=_WHERE,
            fix="take the setting out",
        )


def _is_in_torch() -> bool:
    if find_spec("torch.nn.attention.varlen") is None:
        return False
    names = inspect.signature(varlen_kernel()).parameters
    return all(name in names for name in _NEEDED)
