"""How much computing a pack is: for dealing packs to ranks and for the utilisation in the log.

Counts multiply-adds as two, matrix products only. Backward costs twice the forward where weights train, once where
gradients only pass through, nothing where neither happens (the usual estimate, Kaplan et al. 2020, appendix).
"""

import time
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from smolvlm.model.towers import Tower

MEASURING_S = 0.5
"""A CPU without bfloat16 units takes a hundred times as long over such a product."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComputeCost:
    """FLOPs of one training step's parts."""

    per_token: float
    per_tile: float
    per_target: float

    def pack(self, *, num_tokens: int, num_computed_tiles: int, num_targets: int) -> float:
        """Return the FLOPs of a pack."""
        return self.per_token * num_tokens + self.per_tile * num_computed_tiles + self.per_target * num_targets


def compute_cost(config: Any, learning_rates: dict[Tower, float], *, adapted: Collection[Tower] = ()) -> ComputeCost:
    """Estimate the cost of a model of the family; attention scores are left out (below 5 % at a few hundred tokens).

    Args:
        config: of the model.
        learning_rates: by tower.
        adapted: towers that train an adapter, whose own products (a few per cent) are left out: gradients only pass
            through the layers.
    """
    text, vision = config.text_config, config.vision_config
    head_dim = text.hidden_size // text.num_attention_heads
    kv_width = text.num_key_value_heads * head_dim
    attention = 2 * text.hidden_size**2 + 2 * text.hidden_size * kv_width
    layer = attention + 3 * text.hidden_size * text.intermediate_size
    patches = (vision.image_size // vision.patch_size) ** 2
    vision_layer = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
    tower = patches * (vision.num_hidden_layers * vision_layer + 3 * vision.patch_size**2 * vision.hidden_size)
    tower += vision.num_hidden_layers * 2 * patches**2 * vision.hidden_size
    language_passes = 3 if learning_rates["language_model"] and "language_model" not in adapted else 2
    vision_passes = (2 if "vision_tower" in adapted else 3) if learning_rates["vision_tower"] else 1
    return ComputeCost(
        per_token=2.0 * text.num_hidden_layers * layer * language_passes,
        per_tile=2.0 * tower * vision_passes,
        per_target=2.0 * text.hidden_size * text.vocab_size * language_passes,
    )


@cache
def peak_flops_per_s(device: str, dtype: torch.dtype) -> float:
    """Measure what this device reaches on a large square matrix product, FLOPs a second (best of at most five)."""
    size = 512 if device == "cpu" else 8192
    own = torch.Generator(device).manual_seed(0)  # the run's own randomness (dropout) goes on as if nobody had measured
    left, right = (torch.randn(size, size, device=device, generator=own).to(dtype) for _ in range(2))
    best = float("inf")
    begun = time.perf_counter()
    for _ in range(5):
        started = time.perf_counter()
        product = left @ right
        if device != "cpu":
            product[0, 0].item()
        ended = time.perf_counter()
        best = min(best, ended - started)
        if ended - begun > MEASURING_S:
            break
    return 2.0 * size**3 / best
