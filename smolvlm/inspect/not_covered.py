"""What of a run the comparison packed = alone leaves out, in words.

In: a run's settings. Out: a line for each thing that training does and the comparison does not.
"""

from collections.abc import Iterator

import torch

from smolvlm.config.schema import RunConfig
from smolvlm.train.arguments import trains_in_bf16


def not_covered(config: RunConfig) -> list[str]:
    """Return what the run does and `verify_pack` does not, in words; empty where it covers all."""
    return [*_rounding(config), *_random(config), *_devices(config), *_ways(config)]


def _rounding(config: RunConfig) -> Iterator[str]:
    arguments = config.train.arguments
    if trains_in_bf16(config.train) or config.model.dtype == "bfloat16":
        yield "the rounding of bfloat16 (both sides compute in float64)"
    elif arguments.get("fp16"):
        yield "the rounding of float16 (both sides compute in float64)"
    if arguments.get("tf32"):
        yield "the rounding of TF32 (both sides compute in float64)"


def _random(config: RunConfig) -> Iterator[str]:
    parts = [part for part, entry in config.adapters.entries() if entry.dropout > 0]
    if parts:
        yield f"dropout of the adapters ({', '.join(parts)}): it is off on both sides"


def _devices(config: RunConfig) -> Iterator[str]:
    if torch.cuda.is_available() and not config.train.arguments.get("use_cpu"):
        yield "the kernels of the GPU (both sides compute on the CPU)"


def _ways(config: RunConfig) -> Iterator[str]:
    """Yield what computes the same in another way."""
    arguments = config.train.arguments
    if config.data.vision_cache and not config.rate_of("vision"):
        yield "data.vision_cache (every tile is encoded anew)"
    if config.train.activation_checkpointing:
        yield "train.activation_checkpointing"
    if arguments.get("torch_compile"):
        yield "train.torch_compile"
    if config.train.engine != "ddp":
        yield f"train.engine: {config.train.engine}"
