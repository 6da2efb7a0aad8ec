"""Sizes that were chosen on one CPU, against other values of them on the CPU at hand.

    python -m benchmarks.cpu_constants [--only tiles scores rows dense float32_rows head block] \
        [--rounds 5]

On one thread, at the 256M widths; values take turns, the one in use first, times are the process's
CPU seconds, medians over the rounds, and a ratio is the median of each round's.

- tiles: tiles in a call of a frozen tower.
- scores: scores of attention within a tile that are there at once.
- rows: rows of scores at once under a causal mask.
- dense: queries that small conversations are gathered to, both passes of attention over a pack.
- float32_rows: float32 attention by products against SDPA, by the number of rows.
- head: targets whose logits are there at once.
- block: of these, those that go from logits to gradients together.
"""

import argparse
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.attention import make_model
from benchmarks.head_loss import HIDDEN, VOCABULARY, Problem
from benchmarks.tower_ways import CHOSEN, PATCHES_PER_TILE, computing, embedded, in_turns, report
from smolvlm.model import fused_loss, packed_tower
from smolvlm.model.attention import products
from smolvlm.model.attention.sdpa import DENSE_TOKENS, BlockScope, plan_blocks
from smolvlm.model.cpu_choices import using_choices

Ways = Mapping[str, Callable[[], Any]]


def valued(
    place: MutableMapping[Any, Any] | Any, name: Any, values: Sequence[Any], work: Callable[[], Any]
) -> Ways:
    """Return the same work with each value of a constant, the one in use first."""
    is_mapping = isinstance(place, MutableMapping)

    def put(value: Any) -> None:
        if is_mapping:
            place[name] = value
        else:
            setattr(place, name, value)

    usual = place[name] if is_mapping else getattr(place, name)

    def way(value: Any) -> Callable[[], Any]:
        def run() -> Any:
            put(value)
            try:
                return work()
            finally:
                put(usual)

        return run

    return {f"{value:,}": way(value) for value in dict.fromkeys((usual, *values))}


def attention(shape: tuple[int, int, int, int], *, half: bool, **more: Any) -> Callable[[], Any]:
    """Return both passes of attention by products over (heads, key heads, rows, width)."""
    heads, key_heads, rows, width = shape
    dtype = torch.bfloat16 if half else torch.float32
    inputs = [
        torch.randn(1, rows, count, width, dtype=dtype).transpose(1, 2).requires_grad_()
        for count in (heads, key_heads, key_heads)
    ]
    upstream = torch.randn(1, rows, heads, width, dtype=dtype).transpose(1, 2)
    return lambda: torch.autograd.grad(
        products.attend_by_products(*inputs, **more), inputs, upstream
    )


def tiles(*, half: bool) -> dict[str, Ways]:
    """Two layers of a frozen tower over eight tiles."""
    model = make_model(2, 1.0).requires_grad_(False)
    tower, states = model.model.vision_model, embedded(model, 8)
    dtype = torch.bfloat16 if half else torch.float32

    def way(count: int) -> Callable[[], Any]:
        made = packed_tower.PackedTower(tower, dtype, patches_per_call=count * PATCHES_PER_TILE)
        return lambda: [made.encode(part) for part in states.split(count)]

    return {"tiles a call": {f"{count}": way(count) for count in (2, 1, 4, 8)}}


def chosen(name: str, values: Sequence[int], work: Callable[[], Any]) -> Ways:
    """Return the same work with each value of a choice, the usual one first."""

    def way(value: int) -> Callable[[], Any]:
        def run() -> None:
            with using_choices(replace(CHOSEN, **{name: value})):
                work()

        return run

    return {f"{value:,}": way(value) for value in dict.fromkeys((getattr(CHOSEN, name), *values))}


def scores(*, half: bool) -> dict[str, Ways]:
    """Attention within a tile, and under a causal mask."""
    name = "bf16_scores" if half else "float32_scores"
    works = {
        "a tile": attention((12, 12, PATCHES_PER_TILE, 64), half=half),
        "1,300 tokens": attention((9, 3, 1300, 64), half=half, is_causal=True),
    }
    sizes = [2**power for power in range(16, 24)]
    return {f"scores at once, {shape}": chosen(name, sizes, work) for shape, work in works.items()}


def rows(*, half: bool) -> dict[str, Ways]:
    """Causal attention of the language model."""
    values = (96, 192, 288, 576, 768, 1536)
    found: dict[str, Ways] = {}
    for count in (512, 1300, 4096):
        work = attention((9, 3, count, 64), half=half, is_causal=True)
        found[f"rows a block, {count} tokens"] = (
            valued(products, "BF16_ROWS", values, work)
            if half
            else chosen("float32_rows", values, work)
        )
    return found


def dense(*, half: bool) -> dict[str, Ways]:
    """Attention over 2,048 tokens of conversations of so many tokens."""
    dtype = torch.bfloat16 if half else torch.float32
    inputs = [
        torch.randn(1, count, 2048, 64, dtype=dtype, requires_grad=True) for count in (9, 3, 3)
    ]
    upstream = torch.randn(1, 9, 2048, 64, dtype=dtype)

    def way(ends: np.ndarray, queries: int) -> Callable[[], Any]:
        scope = BlockScope(plan_blocks(ends, dense_tokens=queries), torch.from_numpy(ends))
        scope.masks(dtype)
        return lambda: torch.autograd.grad(
            scope.attend(*inputs, scale=None, dropout=0.0), inputs, upstream
        )

    found: dict[str, Ways] = {}
    for length in (16, 40, 96):
        ends = np.minimum((np.arange(2048) // length + 1) * length, 2048)
        found[f"dense queries, {length} tokens each"] = {
            f"{queries}": way(ends, queries) for queries in (DENSE_TOKENS, 32, 64, 256, 512)
        }
    return found


def float32_rows(*, half: bool) -> dict[str, Ways]:
    """SDPA and products by rows; float32 alone."""
    if half:
        return {}
    found: dict[str, Ways] = {}
    for count in (64, 128, 256, 512):
        query, key, value = (
            torch.randn(1, heads, count, 64, requires_grad=True) for heads in (9, 3, 3)
        )
        upstream = torch.randn(1, 9, count, 64)

        def both(attend: Callable[..., Tensor], inputs: Any, upstream: Any, **more: Any) -> Any:
            return lambda: [
                torch.autograd.grad(attend(*inputs, is_causal=True, **more), inputs, upstream)
                for _ in range(1024 // len(upstream[0, 0]))
            ]

        inputs = (query, key, value)
        found[f"float32, {count} rows"] = {
            "SDPA": both(scaled_dot_product_attention, inputs, upstream, enable_gqa=True),
            "products": both(products.attend_by_products, inputs, upstream),
        }
    return found


def _head(name: str, values: Sequence[int], *, half: bool) -> dict[str, Ways]:
    found: dict[str, Ways] = {}
    for targets in (128, 1024):
        problem = Problem(targets, is_half=half, widths=(HIDDEN, VOCABULARY))
        found[f"{name}, {targets} targets"] = valued(
            getattr(fused_loss, name),
            "cpu",
            values,
            lambda problem=problem: problem.gradients("fused"),
        )
    return found


def head(*, half: bool) -> dict[str, Ways]:
    """The loss and its gradients at the output head."""
    return _head("TARGETS_PER_CHUNK", (64, 128, 256, 1024), half=half)


def block(*, half: bool) -> dict[str, Ways]:
    """The same by targets that are turned into gradients together."""
    return _head("ROWS_PER_BLOCK", (4, 8, 16, 64, 128), half=half)


KINDS: Mapping[str, Callable[..., dict[str, Ways]]] = {
    kind.__name__: kind for kind in (tiles, scores, rows, dense, float32_rows, head, block)
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu_constants", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--only", nargs="*", choices=tuple(KINDS), default=tuple(KINDS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for kind in options.only:
        for half in (True, False):
            for title, ways in KINDS[kind](half=half).items():
                with computing(half=half):
                    found = in_turns(ways, options.rounds)
                report(f"{title}, {'bfloat16' if half else 'float32'}", found)


if __name__ == "__main__":
    main()
