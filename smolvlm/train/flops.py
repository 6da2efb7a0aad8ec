"""How much computing a pack is: for dealing packs to ranks and for the utilisation in the log.

Counts multiply-adds as two, matrix products only. Backward costs twice the forward where weights
train, once where gradients only pass through, nothing where neither happens (the usual estimate,
Kaplan et al. 2020, appendix).
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments

from smolvlm.checkpoints.learning_rates import Kind, kind_of
from smolvlm.model.flops import decoder_layer_flops, patch_embedding_flops, vision_layer_flops
from smolvlm.model.vision import tower_modules
from smolvlm.protocols import VisionLanguageModel

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
        return (
            self.per_token * num_tokens
            + self.per_tile * num_computed_tiles
            + self.per_target * num_targets
        )


def compute_cost(model: VisionLanguageModel) -> ComputeCost:
    """Estimate the cost of a model of the family, trained and frozen as it is now.

    Attention scores are left out (below 5 % at a few hundred tokens), and an adapter's own products
    (a few per cent). The gradient is taken to reach the connector where that or the tower trains,
    though in a pack without pictures it may end earlier.
    """
    text, vision = model.config.text_config, model.config.vision_config
    tower: Any
    tower, connector = tower_modules(model)
    vision_passes, is_passed = _passes(tower.encoder.layers, is_passed=_trains(tower.embeddings))
    is_passed |= _trains(tower) or _trains(connector)
    language = model.model.text_model
    language_passes, is_passed = _passes(
        language.layers, is_passed=is_passed or _trains(language.embed_tokens)
    )
    head_passes = (
        1
        + (is_passed or _trains(language.norm))
        + bool(_kinds(model.lm_head) & {"full", "token_rows"})
    )
    embedding = patch_embedding_flops(vision) * (1 + _trains(tower.embeddings))
    return ComputeCost(
        per_token=decoder_layer_flops(text) * language_passes,
        per_tile=vision_layer_flops(vision) * vision_passes + embedding,
        per_target=2.0 * text.hidden_size * text.vocab_size * head_passes,
    )


def _passes(layers: Iterable[nn.Module], *, is_passed: bool) -> tuple[int, bool]:
    """Return how often a stack of layers is passed: forward, input and weight gradients.

    Args:
        layers: lowest first.
        is_passed: whether anything beneath trains, so that gradients pass through; returned for
            what stands above.
    """
    total = 0
    for layer in layers:
        kinds = _kinds(layer)
        is_passed |= bool(kinds)
        total += 1 + is_passed + ("full" in kinds)
    return total, is_passed


def _kinds(module: nn.Module) -> set[Kind]:
    """Return of which kinds a module's trained parameters are."""
    return {kind_of(name) for name, value in module.named_parameters() if value.requires_grad}


def _trains(module: nn.Module) -> bool:
    return bool(_kinds(module))


@cache
def peak_flops_per_s(device: str, dtype: torch.dtype) -> float:
    """Measure this device's FLOPs a second on a large square product (best of five)."""
    size = 512 if device == "cpu" else 8192
    # A separate generator leaves the run's randomness (dropout) as if nobody had measured.
    generator = torch.Generator(device).manual_seed(0)
    left, right = (
        torch.randn(size, size, device=device, generator=generator).to(dtype) for _ in range(2)
    )
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


def peak_flops_of_ranks(arguments: TrainingArguments) -> float:
    """Return what the devices of all ranks compute at most together, FLOPs a second, as this one's
    is measured, in the run's precision."""
    device = "cuda" if torch.cuda.is_available() and not arguments.use_cpu else "cpu"
    peak = peak_flops_per_s(device, torch.bfloat16 if arguments.bf16 else torch.float32)
    return peak * arguments.world_size
