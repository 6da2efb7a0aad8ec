"""Finds what makes a program wait for its device, on a machine that has none.

`WaitsFound` sees every operation that torch dispatches. It raises where a result's size or a Python
value would have to be read back from the device, and where anything is copied between the CPU and
the device. The device is a fake CUDA one (`FakeTensorMode`), or "meta", on which the backward pass
runs too: torch's engine asks a real driver for CUDA's.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._higher_order_ops.flex_attention import flex_attention
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from smolvlm.datasets.packing.pack import Pack
from smolvlm.model.attention import flex
from smolvlm.model.attention.rule import attention_planner

aten: Any = torch.ops.aten
READS_BACK = {
    *(
        aten._local_scalar_dense.default,
        aten.is_nonzero.default,
        aten.equal.default,
        aten.item.default,
    ),
    *(
        aten.nonzero.default,
        aten.argwhere.default,
        aten.masked_select.default,
        aten.bincount.default,
    ),
    *(aten._unique2.default, aten.unique_dim.default, aten.unique_consecutive.default),
}
"""Operations whose result, or its size, is known to the device alone."""
MAKES_NOTHING = {aten.detach.default, aten._unsafe_view.default}
"""Views that torch does not call views."""
INDEXES = {
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
}


class Waits(AssertionError):
    """The device would have been waited for."""


class WaitsFound(TorchDispatchMode):
    """Raises on an operation that waits, and counts all others by name; views, which launch
    nothing, are left out."""

    supports_higher_order_operators = True

    def __init__(self, device_type: str) -> None:
        super().__init__()
        self.device_type = device_type
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        found = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        is_on_device = any(value.device.type == self.device_type for value in found)
        if is_on_device and func in READS_BACK:
            raise Waits(f"{func} reads back")
        if is_on_device and func in INDEXES and any(_is_mask(index) for index in args[1]):
            raise Waits(f"{func} by a mask counts its true entries")
        if (
            is_on_device
            and func is aten.repeat_interleave.Tensor
            and kwargs.get("output_size") is None
        ):
            raise Waits(f"{func} without an output size")
        result = func(*args, **kwargs)
        self._check_copy(func, found, result)
        if not getattr(func, "is_view", False) and func not in MAKES_NOTHING:
            self.counts[str(func)] += 1
        return result

    def _check_copy(self, func: Any, found: list[Tensor], result: Any) -> None:
        """Refuse what crosses; a CPU scalar beside device tensors is read by the host and
        passes."""
        made = result if isinstance(result, Tensor) else None
        if (
            func is aten._to_copy.default
            and made is not None
            and made.device.type != found[0].device.type
        ):
            raise Waits(f"a copy from {found[0].device.type} to {made.device.type}")
        if func is aten.copy_.default and found[0].device.type != found[1].device.type:
            raise Waits(f"a copy from {found[1].device.type} to {found[0].device.type}")


def _is_mask(index: Any) -> bool:
    return isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8)


@dataclass(frozen=True, slots=True)
class FakeCuda:
    """Moves models and packs to a CUDA device that is not there."""

    mode: FakeTensorMode

    def model(self, model: Any) -> Any:
        return _converted(model, self._moved)

    def inputs(self, pack: Mapping[str, Any]) -> dict[str, Any]:
        """Take a pack's model inputs over, the attention planned for CUDA."""
        plan = pack["attention"]
        moved = {
            name: self._moved(value) for name, value in pack.items() if isinstance(value, Tensor)
        }
        parts = {field.name: getattr(plan, field.name) for field in fields(plan)}
        parts |= {
            name: self._moved(value) for name, value in parts.items() if isinstance(value, Tensor)
        }
        return {**pack, **moved, "attention": type(plan)(**parts)}

    def _moved(self, value: Tensor) -> Tensor:
        return self.mode.from_tensor(value).detach().to("cuda")


@contextmanager
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """Open a world whose CUDA tensors hold nothing; what it is given must have been made outside.

    The fused kernel is the operator behind it, with its own rules of shapes and devices; its
    gradients would need torch's engine, so the graph goes past it.
    """

    def kernel(
        query: Tensor, key: Tensor, value: Tensor, *, block_mask: Any, scale: float, **options: Any
    ) -> Tensor:
        assert options["enable_gqa"] == (query.shape[1] != key.shape[1])
        states = (query.detach(), key.detach(), value.detach())
        attended = flex_attention(
            *states, _unchanged, block_mask.as_tuple(), scale, {"BACKEND": "TRITON"}
        )[0]
        return attended + 0 * query

    monkeypatch.setattr(flex, "flex_kernel", lambda: kernel)
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        yield FakeCuda(mode)


def _unchanged(score: Tensor, *_: Tensor) -> Tensor:
    return score


def on_meta(model: Any) -> Any:
    """Return a model whose tensors hold nothing, and whose backward pass runs."""
    return _converted(model, lambda value: value.detach().to("meta"))


def _converted(model: Any, convert: Callable[[Tensor], Tensor]) -> Any:
    """Replace a model's parameters and buffers, and each parameter's wish for gradients stays."""
    for module in model.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            made = torch.nn.Parameter(convert(value), requires_grad=value.requires_grad)
            module._parameters[name] = made
        for name, value in list(module.named_buffers(recurse=False)):
            module._buffers[name] = convert(value)
    return model


def inputs_for(pack: Pack, device_type: str, *, is_varlen: bool = False) -> dict[str, Any]:
    """Return a pack's model inputs as its loader would make them for a kind of device, not yet
    there."""
    planned = attention_planner(device_type, is_varlen=is_varlen)(pack.scope_end.numpy())
    return {**pack.model_tensors(), "attention": planned}
