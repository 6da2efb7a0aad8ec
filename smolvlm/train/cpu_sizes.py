"""In pieces of which sizes attention is fastest on a CPU: measured in half a second.

In: the ways that were measured before (`cpu_ways.py`). Out: the same with sizes. Each is measured
where the ways use it, on shapes of the 256M model, and the usual one stays unless another is faster
by `MIN_GAIN`. Which ones are measured, and why others are not: "Sizes that one CPU chose" in
docs/results.md.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smolvlm.model.attention.products import attend_by_products
from smolvlm.model.attention.sdpa import plan_sdpa
from smolvlm.model.cpu_choices import CpuChoices, using_choices

MIN_GAIN = 1.05
"""Another size is taken where it is so many times as fast as the usual one."""
NUM_ROUNDS = 3
_WIDTH = 64
"""Of a head."""

Work = Callable[[], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Size:
    """One size, by its name in `CpuChoices`."""

    others: tuple[int, ...]
    """Tried besides the usual one."""
    is_used: Callable[[CpuChoices], bool]
    work: Callable[[CpuChoices], Work]
    """Makes what is timed, for these choices."""


def best_sizes(found: CpuChoices) -> CpuChoices:
    """Return the ways with the fastest sizes."""
    for name, size in SIZES.items():
        if not size.is_used(found):
            continue
        usual = getattr(found, name)
        tried = [replace(found, **{name: value}) for value in (usual, *size.others)]
        works = [_computing(choices, size.work(choices)) for choices in tried]
        seconds = best_seconds(works, num_rounds=NUM_ROUNDS)
        fastest = min(range(len(tried)), key=seconds.__getitem__)
        if seconds[0] > MIN_GAIN * seconds[fastest]:
            found = tried[fastest]
    return found


def best_seconds(works: Sequence[Work], *, num_rounds: int) -> list[float]:
    """Return the best time of each of several works that take turns, seconds."""
    best = [float("inf")] * len(works)
    for _ in range(num_rounds):
        for number, compute in enumerate(works):
            begun = time.perf_counter()
            compute()
            best[number] = min(best[number], time.perf_counter() - begun)
    return best


def _computing(choices: CpuChoices, work: Work) -> Work:
    def compute() -> None:
        with using_choices(choices):
            work()

    return compute


def _both_passes(
    attend: Callable[..., Tensor], heads: tuple[int, int], rows: int, dtype: torch.dtype
) -> Work:
    """Return attention and its gradients, of so many heads of queries and of keys."""
    states = [
        torch.ones(1, count, rows, _WIDTH, dtype=dtype, requires_grad=True)
        for count in (heads[0], heads[1], heads[1])
    ]
    upstream = torch.ones(1, heads[0], rows, _WIDTH, dtype=dtype)
    return lambda: torch.autograd.grad(attend(*states), states, upstream)


def _tile(dtype: torch.dtype) -> Work:
    """Attention within a tile, by two heads."""
    return _both_passes(attend_by_products, (2, 2), 1024, dtype)


def _causal() -> Work:
    """Attention within a conversation, by the heads that share their keys."""

    def attend(*states: Tensor) -> Tensor:
        return attend_by_products(*states, is_causal=True)

    return _both_passes(attend, (3, 1), 1024, torch.float32)


def _short_conversations(choices: CpuChoices) -> Work:
    """Attention over conversations of 24 tokens, which are gathered."""
    ends = (np.arange(1008) // 24 + 1) * 24
    plan = plan_sdpa(ends, dense_tokens=choices.float32_dense_tokens)
    scope = plan.over(torch.from_numpy(ends))

    def attend(*states: Tensor) -> Tensor:
        return scope.attend(*states, scale=None, dropout=0.0)

    return _both_passes(attend, (9, 3), len(ends), torch.float32)


SIZES: Mapping[str, _Size] = {
    "bf16_scores": _Size(
        others=(2**19, 2**21),
        is_used=lambda found: found.bf16_products,
        work=lambda _: _tile(torch.bfloat16),
    ),
    "float32_scores": _Size(
        others=(2**17, 2**19),
        is_used=lambda found: found.onednn_products,
        work=lambda _: _tile(torch.float32),
    ),
    "float32_rows": _Size(
        others=(576,), is_used=lambda found: found.onednn_products, work=lambda _: _causal()
    ),
    "float32_dense_tokens": _Size(others=(64,), is_used=lambda _: True, work=_short_conversations),
}
