"""A step's operations and memory, seen one by one while it runs over tensors without values.

In: something that runs (a forward, a backward). Out: a `Trace`: what is alive when most is, by
part, and how much is computed and moved, by kind of operation. torch dispatches the very operations
that training would; only nothing is computed (`FakeTensorMode`).
"""

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

Part = Literal["weights", "inputs", "gradients", "activations", "logits"]
OpKind = Literal["product", "attention", "attention_backward", "gelu", "special", "unpack", "plain"]
"""Products of matrices; attention, and its backward; GELU; other transcendental functions and
norms; weights restored from 4 bits; everything else that moves bytes."""
UNPACK = "unpack_4bit"
"""The name of the operation that restores a weight."""
LARGE_BYTES = 32 * 2**20
"""A larger block is mapped anew each time that it is taken on a CPU (glibc's `malloc`), and given
back when it is freed; smaller ones lie in a heap."""

KEY_BLOCK = 512
"""Keys that attention on a CPU takes at once; of the last block of a causal one all are computed
(`kvSplitSize` in torch's FlashAttentionKernel.cpp)."""
BACKWARD_FLOPS = 2.5
"""Of attention's backward, for each of its forward: five products for two."""

_ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"
_SPECIAL = frozenset(
    {
        *("silu", "silu_backward", "exp", "tanh", "sigmoid"),
        *("_softmax", "_log_softmax", "_softmax_backward_data", "_log_softmax_backward_data"),
        *("native_layer_norm", "native_layer_norm_backward"),
    }
)
_VIEWS = frozenset({"detach", "_unsafe_view", "alias", "device", "expand", "lift_fresh"})
"""What moves nothing and that torch does not call a view, or that it does."""


@dataclass(slots=True)
class OpTotals:
    """All operations of one kind and type."""

    count: int = 0
    flops: float = 0.0
    computed: float = 0.0
    """The same with what a CPU computes and masks: whole blocks of keys in causal attention."""
    num_bytes: float = 0.0
    """Read and written."""
    fresh_bytes: float = 0.0
    """Of results in blocks that are mapped anew."""


Operations = dict[tuple[OpKind, torch.dtype], OpTotals]


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """What ran."""

    peak: Mapping[Part, int]
    """Bytes of each part where their sum is highest."""
    small_bytes: int
    """The most that is alive, weights aside, in blocks up to `LARGE_BYTES`."""
    large_bytes: int
    """The same in larger ones."""
    operations: Operations

    @property
    def peak_bytes(self) -> int:
        return sum(self.peak.values())

    @property
    def flops(self) -> float:
        """Of matrix products and attention."""
        return sum(totals.flops for totals in self.operations.values())


@dataclass(slots=True)
class _Memory:
    """Which storages are alive, and all that ever came and went."""

    events: list[tuple[int, int]] = field(default_factory=list)
    """Number of a storage and its bytes, negative where it goes."""
    parts: dict[int, Part] = field(default_factory=dict)
    _numbers: dict[int, int] = field(default_factory=dict)
    _references: dict[int, Any] = field(default_factory=dict)

    def add(self, tensor: Tensor, part: Part) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._numbers:
            return
        number, size = len(self.parts), storage.nbytes()
        self._numbers[key], self.parts[number] = number, part
        self.events.append((number, size))

        def gone(_: object) -> None:
            self._numbers.pop(key, None)
            self._references.pop(number, None)
            self.events.append((number, -size))

        self._references[number] = weakref.ref(storage, gone)

    def rename(self, tensor: Tensor, part: Part) -> None:
        """Say what a storage turned out to be."""
        number = self._numbers.get(id(tensor.untyped_storage()))
        if number is not None:
            self.parts[number] = part

    def peak(self) -> dict[Part, int]:
        """Return the bytes of each part where the sum is highest."""
        live: dict[Part, int] = {}
        total, highest, best = 0, -1, {}
        for number, size in self.events:
            part = self.parts[number]
            live[part] = live.get(part, 0) + size
            total += size
            if total > highest:
                highest, best = total, dict(live)
        return best

    def highest(self) -> tuple[int, int]:
        """Return the most that is alive, weights aside, in small blocks and in large ones."""
        live, most = [0, 0], [0, 0]
        for number, size in self.events:
            if self.parts[number] == "weights":
                continue
            is_large = abs(size) > LARGE_BYTES
            live[is_large] += size
            most[is_large] = max(most[is_large], live[is_large])
        return most[0], most[1]


class Tape(TorchDispatchMode):
    """Notes what is dispatched while it is on; inside a `FakeTensorMode`."""

    def __init__(self, *, vocabulary_size: int) -> None:
        """`vocabulary_size`: the width of what is a logit."""
        super().__init__()
        self._memory = _Memory()
        self._operations: Operations = {}
        self._vocabulary_size = vocabulary_size

    def hold(self, tensors: Iterable[Tensor], part: Part) -> None:
        """Count tensors that are there before anything runs."""
        for tensor in tensors:
            self._memory.add(tensor, part)

    def trace(self, gradients: Iterable[Tensor]) -> Trace:
        """Return what was noted.

        Args:
            gradients: as they are now.
        """
        for gradient in gradients:
            self._memory.rename(gradient, "gradients")
        small, large = self._memory.highest()
        return Trace(
            peak=self._memory.peak(),
            small_bytes=small,
            large_bytes=large,
            operations=self._operations,
        )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = [value for value in tree_leaves(result) if isinstance(value, Tensor)]
        if outputs:
            self._note(func, args, kwargs, outputs, result)
        return result

    def _note(self, func: Any, args: Any, kwargs: Any, outputs: list[Tensor], result: Any) -> None:
        for output in outputs:
            is_logit = output.ndim == 2 and output.shape[1] == self._vocabulary_size
            self._memory.add(output, "logits" if is_logit else "activations")
        name = func._schema.name.split("::")[1]
        if func.is_view or name in _VIEWS:
            return
        inputs = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        kind, amount = _kind_of(func, name, args, kwargs, result)
        dtype = next((value.dtype for value in outputs if value.is_floating_point()), torch.int64)
        totals = self._operations.setdefault((kind, dtype), OpTotals())
        totals.count += 1
        totals.flops += amount.useful
        totals.computed += amount.computed
        totals.num_bytes += sum(map(_num_bytes, inputs + outputs))
        totals.fresh_bytes += sum(
            size for value in outputs if (size := _num_bytes(value)) > LARGE_BYTES
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Flops:
    """FLOPs of a product or of attention."""

    useful: float = 0.0
    computed: float = 0.0
    """With what is computed on a CPU and then masked."""

    def __mul__(self, factor: float) -> "Flops":
        return Flops(useful=self.useful * factor, computed=self.computed * factor)


def _kind_of(func: Any, name: str, args: Any, kwargs: Any, result: Any) -> tuple[OpKind, Flops]:
    """Return an operation's kind, and its FLOPs where it is a product or attention."""
    if name.startswith(_ATTENTION):
        is_backward = name.endswith("backward")
        queries, keys = (args[1], args[2]) if is_backward else (args[0], args[1])
        is_causal = kwargs.get("is_causal", False) or any(value is True for value in args)
        flops = attention_flops(queries, keys, is_causal=is_causal)
        if is_backward:
            return "attention_backward", flops * BACKWARD_FLOPS
        return "attention", flops
    if func._overloadpacket in flop_registry:
        flops = float(flop_registry[func._overloadpacket](*args, **kwargs, out_val=result))
        return "product", Flops(useful=flops, computed=flops)
    if name.startswith("gelu"):
        return "gelu", Flops()
    if name == UNPACK:
        return "unpack", Flops()
    return ("special" if name in _SPECIAL else "plain"), Flops()


def _num_bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def attention_flops(queries: Tensor, keys: Tensor, *, is_causal: bool) -> Flops:
    """Return the FLOPs of scores and sums, forward; of causal attention half are of use.

    Args:
        queries, keys: (batch, heads, tokens, width).
        is_causal: whether a query sees no later key.
    """
    batch, heads, num_queries, width = queries.shape
    num_keys = keys.shape[2]
    flops = 4.0 * batch * heads * num_queries * num_keys * width
    if not is_causal:
        return Flops(useful=flops, computed=flops)
    share = min((num_keys + KEY_BLOCK) / (2 * num_keys), 1.0)
    return Flops(useful=flops / 2, computed=flops * share)
