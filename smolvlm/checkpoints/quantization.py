"""Quantised towers: their linear layers in 8 or 4 bits of bitsandbytes, frozen beneath an
adapter.

In: the run file's `quantization`. Out: what transformers needs when it loads a model, and
afterwards the proof that exactly the layers asked for are quantised. The output head and embeddings
never are. What such a model computes is in `quantized_layers.py`; what is saved is the adapter, for
the base in any precision.
"""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from smolvlm.config.quantization import EightBits, FourBits, Quantization
from smolvlm.errors import ConfigError
from smolvlm.model.towers import TOWER_OF, TOWERS, Tower, modules_of, tower_of
from smolvlm.protocols import VisionLanguageModel

HEAD = "lm_head"


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantizedLayers:
    """What is quantised in a model."""

    kind: str
    """How, in words."""
    num_layers: Mapping[Tower, int]
    """Of the quantised towers."""
    held_bytes: int
    full_bytes: int
    """What the same weights would take in the model's own type."""

    @property
    def towers(self) -> list[str]:
        """A line a quantised tower."""
        return [
            f"{tower:<16}{number} layers {self.kind}" for tower, number in self.num_layers.items()
        ]

    def __str__(self) -> str:
        held_mb, full_mb = (size / 1e6 for size in (self.held_bytes, self.full_bytes))
        return "\n".join(
            [*self.towers, f"their weights take {held_mb:,.1f} MB instead of {full_mb:,.1f}"]
        )


def loading_arguments(
    config: EightBits | FourBits, *, dtype: torch.dtype, device: torch.device
) -> dict[str, object]:
    """Return what `from_pretrained` is to be given besides.

    Args:
        config: of the towers that are quantised.
        dtype: of the other weights in memory.
        device: where the model will stay: transformers does not move a quantised one.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            "bitsandbytes is not installed",
            where="quantization",
            fix='pip install "smolvlm[quantization]"',
        )
    from transformers import BitsAndBytesConfig

    towers = {TOWER_OF[part] for part in config.parts}
    # Full names: a bare `vision_model` names nothing (transformers 5.23), and giving any drops the
    # default, the head.
    skipped = [
        HEAD,
        *(
            name
            for tower in TOWERS
            if tower not in towers
            for name in modules_of(tower)
            if name != HEAD
        ),
    ]
    if config.bits == 8:
        how: dict[str, Any] = {"load_in_8bit": True}
    else:
        how = {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": config.codebook,
            "bnb_4bit_use_double_quant": config.has_double_quant,
            "bnb_4bit_compute_dtype": dtype,
        }
    return {
        "quantization_config": BitsAndBytesConfig(llm_int8_skip_modules=skipped, **how),
        "device_map": {"": device},
    }


def check_quantized_layers(model: VisionLanguageModel, config: Quantization) -> None:
    """Make quantised layers compute as training needs it, and check that they are those asked.

    Raises:
        ConfigError: some other layers are quantised than those asked for.
    """
    from smolvlm.checkpoints.quantized_layers import is_quantized, use_exact_matmul

    use_exact_matmul(model)
    towers = {TOWER_OF[part] for part in config.parts}
    linear = {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)
    }
    wanted = {name for name in linear if name != HEAD and tower_of(f"{name}.weight") in towers}
    quantized = {name for name, module in linear.items() if is_quantized(module)}
    if wanted != quantized:
        left_out, too_many = sorted(wanted - quantized), sorted(quantized - wanted)
        problems = [f"{len(left_out)} left out, the first {left_out[0]}"] if left_out else []
        problems += [f"{len(too_many)} too many, the first {too_many[0]}"] if too_many else []
        raise ConfigError(
            f"bitsandbytes quantised {len(quantized)} layers, asked were {len(wanted)}: "
            f"{'; '.join(problems)}",
            where="quantization",
            fix="install the bitsandbytes and transformers that constraints.txt names, or take the "
            "section out",
        )
    # What transformers sets where it adds an adapter itself; its trainer wants to see it before it
    # trains such a model.
    model._hf_peft_config_loaded = True


def quantized_layers(model: VisionLanguageModel, config: Quantization) -> QuantizedLayers | None:
    """Return what is quantised in a loaded model; None where the settings ask for nothing."""
    if config.bits is None:
        return None
    from smolvlm.checkpoints.quantized_layers import held_bytes, is_quantized

    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and is_quantized(module)
    }
    held_in = [tower_of(f"{name}.weight") for name in layers]
    return QuantizedLayers(
        kind=_kind(config),
        num_layers={tower: held_in.count(tower) for tower in TOWERS if tower in held_in},
        held_bytes=sum(held_bytes(layer) for layer in layers.values()),
        full_bytes=sum(num_values(layer.weight) for layer in layers.values())
        * model.dtype.itemsize,
    )


def _kind(config: EightBits | FourBits) -> str:
    if config.bits == 8:
        return "in 8 bits"
    doubled = ", its scales quantised too" if config.has_double_quant else ""
    return f"in 4 bits ({config.codebook}{doubled})"


def num_values(weight: Tensor) -> int:
    """Return how many numbers a parameter stands for; in 4 bits two of them share a byte."""
    state = getattr(weight, "quant_state", None)
    return weight.numel() if state is None else prod(state.shape)
