"""Products of float32 matrices on a CPU by torch and by oneDNN, and a frozen tower laid out once.

    python -m benchmarks.products [--rounds 5] [--layers 4]

Linear layers of the 256M widths, forward and backward, then a frozen tower of so many layers over
four tiles, in float32 and under autocast in bfloat16. Both ways take turns on one thread; times are
the process's CPU seconds, medians over the rounds, and the ratio is the median of each round's.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import linear

from benchmarks.attention import make_model
from smolvlm.model.cpu_choices import STOCK_CHOICES, CpuChoices, using_choices
from smolvlm.model.onednn import linear_by_onednn, onednn_products

LAYERS = {
    "tower, first of its MLP": (4096, 768, 3072),
    "tower, second of its MLP": (4096, 3072, 768),
    "tower, attention": (4096, 768, 768),
    "language model, gate": (1472, 576, 1536),
    "language model, keys": (1472, 576, 192),
}
"""Rows, width in, width out."""
CHOSEN = CpuChoices(bf16_products=True, onednn_products=True)


def in_turns(ways: Sequence[Callable[[], Any]], rounds: int) -> tuple[float, float, float]:
    """Return the median CPU seconds of two ways, and the median ratio."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds + 1):
        for way, times in zip(ways, taken, strict=True):
            begun = time.process_time()
            way()
            if number:  # the first warms up
                times.append(time.process_time() - begun)
    first, second = map(statistics.median, taken)
    return first, second, statistics.median(a / b for a, b in zip(*taken, strict=True))


def compare_layer(rows: int, width_in: int, width_out: int, rounds: int) -> str:
    """Return GFLOP/s of both ways, forward and backward."""
    states = torch.randn(rows, width_in, requires_grad=True)
    weight = torch.randn(width_out, width_in, requires_grad=True)
    upstream = torch.randn(rows, width_out)

    def both_passes(multiply: Callable[..., torch.Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(multiply(states, weight), (states, weight), upstream)

    torchs, ours, ratio = in_turns([both_passes(linear), both_passes(linear_by_onednn)], rounds)
    flops = 6 * rows * width_in * width_out / 1e9
    return f"torch {flops / torchs:4.0f}, oneDNN {flops / ours:4.0f} GFLOP/s, {ratio:.2f} times"


def compare_tower(layers: int, rounds: int, *, half: bool) -> str:
    """Return seconds of a frozen tower over four tiles, stock and laid out."""
    model = make_model(layers, 1.0).requires_grad_(False)
    tiles = torch.randint(0, 256, (4, 3, 512, 512), dtype=torch.uint8)

    def run(choices: CpuChoices) -> torch.Tensor:
        with (
            using_choices(choices),
            onednn_products("cpu"),
            torch.autocast("cpu", torch.bfloat16, enabled=half),
        ):
            return model.tower_features(tiles)

    exact = run(STOCK_CHOICES).float()
    error = ((run(CHOSEN).float() - exact).norm() / exact.norm()).item()
    ways = [lambda: run(STOCK_CHOICES), lambda: run(CHOSEN)]
    stock, ours, ratio = in_turns(ways, rounds)
    return f"stock {stock:.2f} s, laid out {ours:.2f} s, {ratio:.2f} times; {error:.1e} apart"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.products", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=4, help="of the tower")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, shape in LAYERS.items():
        print(f"{name:28s} {compare_layer(*shape, options.rounds)}", flush=True)
    for half in (False, True):
        name = f"frozen tower, {'bfloat16' if half else 'float32'}"
        print(f"{name:28s} {compare_tower(options.layers, options.rounds, half=half)}", flush=True)


if __name__ == "__main__":
    main()
