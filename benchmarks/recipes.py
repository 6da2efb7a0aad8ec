"""`python -m benchmarks.recipes`: what the run files of `scripts/runs` take, computed from
dimensions alone.

In: the recipes. Out: for each its trained parameters, the memory that does not depend on rows
(weights, gradients, the optimizer's two moments) and the FLOPs of a full pack. Nothing is run:
models stand on the meta device at the published dimensions. What activations take, and how much of
its peak a device reaches, is not known from dimensions; a run logs both (`peak_memory_gb`, `mfu`).
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from smolvlm.build.configs import PublishedSize, published_config
from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.learning_rates import freeze
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.load import load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES
from smolvlm.model.towers import TOWER_OF, Tower
from smolvlm.train.flops import compute_cost
from smolvlm.train.run_model import learning_rates

RUNS = Path(__file__).parents[1] / "scripts" / "runs"
SIZES: dict[str, PublishedSize] = {
    "vqa_lora": "256M",
    "keep_general": "256M",
    "vqa_qlora": "2.2B",
    "full_finetune": "500M",
    "video_captions": "500M",
    "dpo": "256M",
    "parts_1_connector": "500M",
    "parts_2_full": "500M",
}
"""Recipe -> the model's published dimensions."""
FLOAT_BYTES = 4
BYTES_IN_4_BITS = 0.52
"""A weight, with its share of the blocks' doubly quantised scales."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a recipe takes."""

    recipe: str
    size: PublishedSize
    trained: int
    """Parameters."""
    state_gb: float
    """Weights, gradients, and the optimizer's moments, float32 but where the recipe says otherwise;
    10^9 bytes."""
    pack_tflop: float
    """A pack as full as its budgets allow, forward and backward; with the tower frozen its tiles
    are left out, since they are computed once."""


def estimate(recipe: str) -> Estimate:
    """Compute what a recipe takes."""
    config = load_run_config(RUNS / f"{recipe}.yaml", [])
    size = SIZES[recipe]
    with torch.device("meta"):
        model: Any = MODEL_CLASSES["smolvlm"](published_config(size))
    kinds: dict[Tower, AdapterConfig] = {
        TOWER_OF[part]: entry for part, entry in config.adapters.entries() if entry.is_adapter
    }
    if kinds:
        attach_adapters(model, kinds, base="", seed=0)
    freeze(model, learning_rates(config, model.config))
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    cost = compute_cost(model)
    tiles = config.data.max_tiles_per_pack if config.rate_of("vision") else 0
    flops = cost.pack(
        num_tokens=config.data.max_tokens_per_pack, num_computed_tiles=tiles, num_targets=0
    )
    return Estimate(
        recipe=recipe,
        size=size,
        trained=trained,
        state_gb=(_weight_bytes(model, config) + trained * FLOAT_BYTES * 3) / 1e9,
        pack_tflop=flops / 1e12,
    )


def _weight_bytes(model: Any, config: RunConfig) -> float:
    towers = [TOWER_OF[part] for part in config.quantization.parts]
    quantised = 0
    if "language_model" in towers:
        layers = model.model.text_model.layers
        quantised = sum(
            value.numel() for name, value in layers.named_parameters() if "base_layer" in name
        )
    total = sum(value.numel() for value in model.parameters())
    return (total - quantised) * FLOAT_BYTES + quantised * BYTES_IN_4_BITS


def main() -> int:
    """Print the table."""
    print(
        "| recipe | model | trained parameters | weights, gradients, moments, GB | a full pack, "
        "TFLOP |"
    )
    print("|---|---|---|---|---|")
    for recipe in SIZES:
        own = estimate(recipe)
        print(
            f"| {own.recipe} | {own.size} | {own.trained:,} | {own.state_gb:.2f} | "
            f"{own.pack_tflop:.1f} |"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
