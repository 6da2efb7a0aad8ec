"""How long a vision tower takes for one tile on this machine's CPU: random weights, float32, one
thread, in turn.

What is measured is CPU time of one thread, which on an idle machine is the time itself and on a
busy one still means something. A machine's speed moves while it is measured, so the towers take
turns and what is compared is the ratio within a round; medians over the rounds. The time does not
depend on the weights' values, so towers whose layers are alike share them: three sizes of SigLIP
so400m are held as one.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMEncoder, SmolVLMVisionTransformer

from smolvlm.model.vision import run_tower


@dataclass(frozen=True, kw_only=True, slots=True)
class TileTime:
    """One tower's medians."""

    tile_ms: float
    """CPU time of one thread."""
    ratio: float
    """To the first tower's, within a round."""


def measure_tiles(configs: Mapping[str, Any], *, rounds: int) -> dict[str, TileTime]:
    """Measure towers on one tile, in turn.

    Args:
        configs: name -> `vision_config`; the first is what the others are compared with.
        rounds: turns; one tile of the first tower before them is not counted.
    """
    first, *_ = configs
    towers = _random_towers(configs)
    times: dict[str, list[float]] = {name: [] for name in configs}
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _tile_ms(towers[first], configs[first].image_size)
        for _ in range(rounds):
            for name, tower in towers.items():
                times[name].append(_tile_ms(tower, configs[name].image_size))
    finally:
        torch.set_num_threads(num_threads)
    return {
        name: TileTime(
            tile_ms=statistics.median(tile_times),
            ratio=statistics.median(
                ours / theirs for ours, theirs in zip(tile_times, times[first], strict=True)
            ),
        )
        for name, tile_times in times.items()
    }


@torch.no_grad()
def _random_towers(
    configs: Mapping[str, Any],
) -> dict[str, SmolVLMVisionTransformer]:
    generator = torch.Generator().manual_seed(0)
    encoders: dict[tuple[object, ...], SmolVLMEncoder] = {}
    towers: dict[str, SmolVLMVisionTransformer] = {}
    for name, config in configs.items():
        config._attn_implementation = "sdpa"
        with torch.device("meta"):
            tower = SmolVLMVisionTransformer(config).eval()
        encoder = encoders.setdefault(_encoder_shape(config), tower.encoder)
        for module in (
            tower.embeddings,
            tower.post_layernorm,
            *([encoder] if encoder is tower.encoder else []),
        ):
            for parameter in module.to_empty(device="cpu").parameters():
                parameter.normal_(std=0.02, generator=generator)
        tower.encoder = encoder
        towers[name] = tower
    return towers


def _encoder_shape(config: SmolVLMVisionConfig) -> tuple[object, ...]:
    shape = (
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
    )
    return *shape, config.hidden_act, config.layer_norm_eps


@torch.no_grad()
def _tile_ms(tower: SmolVLMVisionTransformer, side_px: int) -> float:
    pixels = torch.zeros(1, 3, side_px, side_px)
    started = time.process_time()
    run_tower(tower, pixels)
    return (time.process_time() - started) * 1e3
