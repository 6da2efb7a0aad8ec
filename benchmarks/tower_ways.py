"""Ways of a frozen tower that were tried on a CPU.

    python -m benchmarks.tower_ways [--only tiles int8 sums share] [--rounds 5] [--layers 4]

All on one thread, at the 256M widths with so many layers of each tower; the ways take turns, times
are the process's CPU seconds, medians over the rounds, and a ratio is the median of each round's.

- tiles: a frozen tower's eight tiles in calls of one, two, four and eight.
- int8: its linear layers in 8 bits (weights by output channel, inputs by one scale for each call,
  found when they come, or kept from the first), time and errors against float32.
- sums: float32, what is added up from layer to layer written by the products themselves.
- share: where the frozen tower's time goes.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import smolvlm.model.packed_tower as packed_tower
from benchmarks.attention import make_model
from smolvlm.model.cpu_choices import CpuChoices, using_choices
from smolvlm.model.onednn import onednn_products

CHOSEN = CpuChoices(bf16_products=True, onednn_products=True)
NUM_TILES = 8
SIDE_PX = 512
PATCHES_PER_TILE = 1024
ROWS = 2 * PATCHES_PER_TILE


def in_turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Return each way's median CPU seconds, and how many times as fast as the first it is."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            begun = time.process_time()
            way()
            if number:  # the first warms up
                taken[name].append(time.process_time() - begun)
    first = next(iter(taken.values()))
    return {
        name: (
            statistics.median(times),
            statistics.median(a / b for a, b in zip(first, times, strict=True)),
        )
        for name, times in taken.items()
    }


def report(title: str, found: Mapping[str, tuple[float, float]], **more: str) -> None:
    """Print one line for each way."""
    for name, (seconds, ratio) in found.items():
        print(
            f"{title:24s} {name:22s} {seconds:7.3f} s  {ratio:.3f}x  {more.get(name, '')}",
            flush=True,
        )


@contextmanager
def computing(*, half: bool) -> Iterator[None]:
    """Compute as a run on this CPU does."""
    with (
        using_choices(CHOSEN),
        onednn_products("cpu"),
        torch.autocast("cpu", torch.bfloat16, enabled=half),
    ):
        yield


def embedded(model: Any, num_tiles: int) -> Tensor:
    """Return something like embedded patches."""
    width = model.config.vision_config.hidden_size
    return torch.randn(num_tiles, PATCHES_PER_TILE, width)


def compare_tiles(model: Any, rounds: int, *, half: bool) -> None:
    """Print what tiles together in a call save."""
    states = embedded(model, NUM_TILES)
    dtype = torch.bfloat16 if half else torch.float32
    tower = model.model.vision_model

    def way(count: int) -> Callable[[], Any]:
        packed = packed_tower.PackedTower(tower, dtype, patches_per_call=count * PATCHES_PER_TILE)
        return lambda: torch.cat([packed.encode(part) for part in states.split(count)])

    ways = {f"{count} a call": way(count) for count in (2, 1, 4, 8)}
    with computing(half=half):
        same = torch.equal(ways["2 a call"](), ways["8 a call"]())
        found = in_turns(ways, rounds)
    report(f"tiles, {_name(half)}", found)
    print(f"{'':24s} two and eight a call are {'' if same else 'not '}equal to the bit")


class Int8Linear:
    """A linear layer in 8 bits for oneDNN; what it returns is bfloat16."""

    def __init__(self, linear: nn.Linear, *, rows: int, is_static: bool) -> None:
        weight = linear.weight.detach().float()
        self._scale = (weight.abs().amax(1) / 127).clamp_min(1e-12)
        whole = (weight / self._scale[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(whole, [rows, weight.shape[1]])
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = None if linear.bias is None else linear.bias.detach().float()
        self._is_static = is_static
        self._kept: tuple[float, int] | None = None

    def __call__(self, states: Tensor, *, activation: str | None = None) -> Tensor:
        rows = states.flatten(0, -2)
        scale, zero = self._kept or _input_scale(rows)
        if self._is_static:
            self._kept = scale, zero
        whole = torch.quantize_per_tensor(rows.float(), scale, zero, torch.quint8).int_repr()
        weight = self._weight, self._scale, self._zeros, self._bias
        kind = ("none" if activation is None else "gelu", [], activation or "")
        product = torch.ops.onednn.qlinear_pointwise(
            whole, scale, zero, *weight, 1.0, 0, torch.bfloat16, *kind
        )
        return product.view(*states.shape[:-1], -1)


def _input_scale(rows: Tensor) -> tuple[float, int]:
    """Return scale and zero of inputs in unsigned 8 bits."""
    lowest, highest = (value.item() for value in torch.aminmax(rows))
    scale = max((max(highest, 0.0) - min(lowest, 0.0)) / 255, 1e-12)
    return scale, round(-min(lowest, 0.0) / scale)


def int8_tower(tower: Any, *, is_static: bool) -> packed_tower.PackedTower:
    """Return a frozen tower whose linear layers are in 8 bits, all else as in bfloat16."""
    made = packed_tower.PackedTower(tower, torch.bfloat16, patches_per_call=ROWS)
    for number, layer in enumerate(made._layers):
        names = packed_tower._LINEARS + packed_tower._LINEARS_OF_MLP
        linears: list[Any] = [
            Int8Linear(
                tower.encoder.layers[number].get_submodule(name), rows=ROWS, is_static=is_static
            )
            for name in names
        ]
        layer.queries, layer.keys, layer.values, layer.output, layer.first, layer.second = linears
    return made


def compare_int8(model: Any, rounds: int) -> None:
    """Print the frozen tower's time and error in 8 bits and in bfloat16, and a layer's time."""
    tower, states = model.model.vision_model, embedded(model, 2)
    towers = {
        "bfloat16": packed_tower.PackedTower(tower, torch.bfloat16, patches_per_call=ROWS),
        "8 bits": int8_tower(tower, is_static=False),
        "8 bits, scales kept": int8_tower(tower, is_static=True),
    }
    exact = packed_tower.PackedTower(tower, torch.float32, patches_per_call=ROWS)
    with computing(half=True):
        wanted = tower.post_layernorm(exact.encode(states).float())
        errors = {
            name: f"{_error(tower.post_layernorm(way.encode(states).float()), wanted):.1e} from "
            "float32"
            for name, way in towers.items()
        }
        ways = {name: lambda way=way: way.encode(states) for name, way in towers.items()}
        report("int8", in_turns(ways, rounds), **errors)
    for name in ("queries", "first", "second"):
        made = {kind: getattr(way._layers[0], name) for kind, way in towers.items()}
        width = 3072 if name == "second" else 768
        inputs = torch.randn(ROWS, width, dtype=torch.bfloat16)
        ways = {
            kind: lambda way=way, inputs=inputs: [way(inputs) for _ in range(5)]
            for kind, way in made.items()
        }
        report(f"  {name}, five times", in_turns(ways, rounds))


class SummingTower(packed_tower.PackedTower):
    """Float32: products write what is added up from layer to layer themselves."""

    @torch.no_grad()
    def encode(self, embedded: Tensor) -> Tensor:
        states = embedded.float()
        for layer in self._layers:
            normed = packed_tower._normed(layer.norms[0], states)
            states = self._sum(states, self._mixed(layer, normed), layer.output)
            normed = packed_tower._normed(layer.norms[1], states)
            states = self._sum(
                states, layer.first(normed, activation=self._algorithm), layer.second
            )
        return states

    @staticmethod
    def _sum(states: Tensor, inputs: Tensor, linear: Any) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise.binary(
            inputs, states, linear.weight, linear.bias, "add"
        )

    @staticmethod
    def _mixed(layer: Any, states: Tensor) -> Tensor:
        heads = states.unflatten(-1, (-1, layer.head_width)).shape[:-1]
        parts = (
            linear(states).view(*heads, layer.head_width).transpose(1, 2)
            for linear in (layer.queries, layer.keys, layer.values)
        )
        mixed = packed_tower.attend(*parts, scale=layer.scale)
        return mixed.transpose(1, 2).reshape(states.shape)


def compare_sums(model: Any, rounds: int) -> None:
    """Print what sums within the products save in float32."""
    tower, states = model.model.vision_model, embedded(model, 2)
    makers = {"added in place": packed_tower.PackedTower, "added by products": SummingTower}
    towers = {
        name: make(tower, torch.float32, patches_per_call=ROWS) for name, make in makers.items()
    }
    with computing(half=False):
        first, second = (way.encode(states) for way in towers.values())
        ways = {name: lambda way=way: way.encode(states) for name, way in towers.items()}
        report("sums, float32", in_turns(ways, rounds))
    print(f"{'':24s} {_error(second, first):.1e} apart")


def show_share(model: Any, *, half: bool) -> None:
    """Print the share of a frozen tower's time that each operation takes by itself."""
    dtype = torch.bfloat16 if half else torch.float32
    tower, states = model.model.vision_model, embedded(model, 2)
    packed = packed_tower.PackedTower(tower, dtype, patches_per_call=ROWS)
    with computing(half=half):
        packed.encode(states)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            for _ in range(3):
                packed.encode(states)
    rows = sorted(profile.key_averages(), key=lambda row: -row.self_cpu_time_total)
    total = sum(row.self_cpu_time_total for row in rows)
    shares = [f"{row.key} {row.self_cpu_time_total / total:.1%}" for row in rows[:10]]
    print(f"share, {_name(half):18s}", ", ".join(shares))


def _error(found: Tensor, wanted: Tensor) -> float:
    return ((found.float() - wanted.float()).norm() / wanted.float().norm()).item()


def _name(half: bool) -> str:
    return "bfloat16" if half else "float32"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tower_ways", description=__doc__.split("\n")[0]
    )
    names = ("tiles", "int8", "sums", "share")
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--layers", type=int, default=4, help="of each tower")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = make_model(options.layers, 1.0).requires_grad_(False)
    for half in (True, False):
        if "tiles" in options.only:
            compare_tiles(model, options.rounds, half=half)
        if "share" in options.only:
            show_share(model, half=half)
    if "int8" in options.only:
        compare_int8(model, options.rounds)
    if "sums" in options.only:
        compare_sums(model, options.rounds)


if __name__ == "__main__":
    main()
