"""What each choice of `train.activation_checkpointing` takes of a step, in time and in memory.

    python -m benchmarks.activation_checkpointing [--rounds 5] [--layers 4 10] [--precision bf16]

A model of the 256M widths with so many layers of tower and language model, all of it trained, on
one thread; packs of rows of a tile and so many words. The choices take turns, times are the
process's CPU seconds of forward and backward, medians over the rounds, and a ratio is the median of
each round's. Kept are the bytes that the forward pass leaves for the backward pass. The peak is a
process's of its own over two steps (the second beside the first one's gradients), program, weights
and gradients included. Gradients are compared to the bit.
"""

import argparse
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from benchmarks.attention import make_model, make_pack
from benchmarks.tower_ways import computing, in_turns
from smolvlm.config.checkpointing import Checkpointing
from smolvlm.model.checkpointing import checkpointed_towers

CHOICES: dict[str, Checkpointing] = {
    "false": False,
    "language_model": "language_model",
    "vision_tower": "vision_tower",
    "true": True,
}
PACKS = {"pictures": (4, 120), "text": (2, 1000)}
"""Rows of a tile, and words of each."""


def choose(model: Any, choice: Checkpointing) -> None:
    """Let a model compute the activations of some towers again."""
    model.activation_checkpointing_disable()
    model.checkpointed_towers = checkpointed_towers(choice)
    if model.checkpointed_towers:
        model.activation_checkpointing_enable()


def step(model: Any, pack: dict[str, Any], *, half: bool) -> int:
    """Run forward and backward, and return the bytes kept between them besides the weights."""
    weights = {id(value.untyped_storage()) for value in model.parameters()}
    storages = WeakIdKeyDictionary()

    def note(value: Tensor) -> Tensor:
        storages[value.untyped_storage()] = value.untyped_storage().nbytes()
        return value

    with computing(half=half):
        with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
            loss = model(pack=pack, normalizer=float(len(pack["target_ids"]))).loss
        kept = sum(size for storage, size in storages.items() if id(storage) not in weights)
        loss.backward()
    return kept


def gradients(model: Any, pack: dict[str, Any], *, half: bool) -> list[Tensor]:
    """Return all gradients of a step."""
    step(model, pack, half=half)
    found = [value.grad for value in model.parameters() if value.grad is not None]
    model.zero_grad()
    return found


def peak_bytes(choice: Checkpointing, rows: tuple[int, int], layers: Any, half: bool) -> int:
    """Return the most that a process holds over two steps."""
    torch.set_num_threads(1)
    model, pack = make_model(layers, 1.0), make_pack(*rows)
    choose(model, choice)
    for _ in range(2):
        step(model, pack, half=half)
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def compare(model: Any, name: str, layers: Any, *, rounds: int, half: bool) -> None:
    """Print a line for each choice."""
    pack = make_pack(*PACKS[name])
    choose(model, False)
    expected, kept = gradients(model, pack, half=half), {}

    def way(choice: Checkpointing) -> None:
        choose(model, choice)
        kept[str(choice).lower()] = step(model, pack, half=half)
        model.zero_grad()

    found = in_turns({name: lambda c=choice: way(c) for name, choice in CHOICES.items()}, rounds)
    for word, choice in CHOICES.items():
        choose(model, choice)
        same = all(map(torch.equal, gradients(model, pack, half=half), expected))
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peak = pool.apply(peak_bytes, (choice, PACKS[name], layers, half))
        seconds, ratio = found[word]
        print(
            f"{name:10s}{'bfloat16' if half else 'float32':10s}{word:16s}{seconds:7.3f} s  "
            f"{1 / ratio:.3f}x the time  {kept[word] / 1e6:7,.0f} MB kept  peak "
            f"{peak / 1e9:.3f} GB  {'equal to the bit' if same else 'other bits'}",
            flush=True,
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.activation_checkpointing", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, nargs=2, default=(4, 10), help="tower, language")
    parser.add_argument("--precision", choices=("bf16", "float32"), default="bf16")
    parser.add_argument("--only", nargs="*", choices=tuple(PACKS), default=tuple(PACKS))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    layers = tuple(options.layers)
    model = make_model(layers, 1.0).requires_grad_(True)
    for name in options.only:
        half = options.precision == "bf16"
        compare(model, name, layers, rounds=options.rounds, half=half)


if __name__ == "__main__":
    main()
