"""How long a vision tower takes for one tile on this machine's CPU: random weights, float32, towers in turn.

A machine's speed moves while it is measured, so the towers take turns and what is compared is the ratio within a round;
medians over the rounds. The time does not depend on the weights' values.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

from smolvlm.model.vision import run_tower


@dataclass(frozen=True, kw_only=True, slots=True)
class TileTime:
    """One tower's medians."""

    tile_ms: float
    ratio: float
    """To the first tower's, within a round."""


def measure_tiles(configs: Mapping[str, Any], *, rounds: int) -> dict[str, TileTime]:
    """Measure towers on one tile, in turn.

    Args:
        configs: name -> `vision_config`; the first is what the others are compared with.
        rounds: turns, after a first one that is not counted.
    """
    first, *_ = configs
    towers = {name: _random_tower(config) for name, config in configs.items()}
    times: dict[str, list[float]] = {name: [] for name in configs}
    for _ in range(rounds + 1):
        for name, tower in towers.items():
            times[name].append(_tile_ms(tower, configs[name].image_size))
    counted = {name: own[1:] for name, own in times.items()}
    return {
        name: TileTime(
            tile_ms=statistics.median(own),
            ratio=statistics.median(ours / theirs for ours, theirs in zip(own, counted[first], strict=True)),
        )
        for name, own in counted.items()
    }


def _random_tower(config: Any) -> Any:
    config._attn_implementation = "sdpa"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SmolVLMVisionTransformer(config).eval()


@torch.no_grad()
def _tile_ms(tower: Any, side_px: int) -> float:
    pixels = torch.zeros(1, 3, side_px, side_px)
    started = time.perf_counter()
    run_tower(tower, pixels)
    return (time.perf_counter() - started) * 1e3
