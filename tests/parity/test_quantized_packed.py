"""The law holds over a quantised base: packed through our model = alone through the stock class,
bitsandbytes and peft.

Both load the same weights in 8 or 4 bits, theirs as transformers and bitsandbytes do it by
themselves, and hold the same adapters. Theirs is in training mode, in which bitsandbytes does on a
CPU what ours does everywhere: it multiplies with the weights brought back to float32. Tolerances
are those of `test_packed_equals_alone`: the quantised weights are the same to the bit, and what is
left is float32's rounding, as with any other linear layer.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForImageTextToText, BitsAndBytesConfig

from smolvlm.build.tiny import tiny_model
from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.peft_layers import adapter_tensors
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.quantization import Quantization, quantization_of
from smolvlm.model.towers import TOWERS, Tower
from tests.parity.test_adapters_packed import AdaptedBench
from tests.parity.test_packed_equals_alone import MIXED, texts

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

KINDS: dict[str, dict[str, Any]] = {
    "8 bit": {"bits": 8},
    "nf4": {"bits": 4},
    "fp4": {"bits": 4, "quant_type": "fp4", "double_quant": False},
}
STOCK: dict[str, dict[str, Any]] = {
    "8 bit": {"load_in_8bit": True},
    "nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True},
    "fp4": {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SmolVLM: tiles of 32 px, a longest edge of two tiles."""
    return tiny_model(tmp_path_factory.mktemp("quantised") / "tiny", longest_edge_px=64)


@pytest.fixture(scope="module")
def loaded(base: Path) -> Callable[[Quantization], Any]:
    """Loads our quantised model, once for equal settings; a test copies it."""
    held: dict[str, Any] = {}

    def load(config: Quantization) -> Any:
        if (name := repr(config)) not in held:
            held[name] = load_checkpoint(str(base), quantization=config).model
        return copy.deepcopy(held[name])

    return load


@pytest.fixture(scope="module")
def plain_bench(base: Path, make_bench: Callable[..., Any]) -> Any:
    return make_bench(load_checkpoint(str(base)).model, None, base)


@pytest.fixture
def quantized(
    base: Path, loaded: Any, plain_bench: Any, tmp_path: Path
) -> Callable[..., AdaptedBench]:
    """Makes a bench of two quantised models with the same adapters, their matrices random."""

    def make(
        kind: str, *, of_type: Any = "lora", towers: Sequence[Any] = ("language",)
    ) -> AdaptedBench:
        config = quantization_of({**KINDS[kind], "towers": list(towers)})
        ours = loaded(config)
        kinds: dict[Tower, AdapterConfig] = {
            tower: AdapterConfig(type=of_type, r=2 + number, alpha=3)
            for number, tower in enumerate(TOWERS)
        }
        attached = attach_adapters(ours, kinds, base=str(base), seed=0)
        generator = torch.Generator().manual_seed(0)
        for name, value in adapter_tensors(ours).items():
            if ".lora_B." in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
        freeze(ours, LearningRates(adapter=dict.fromkeys(TOWERS, 1.0)))
        attached.save(ours, tmp_path)
        names = {
            "language": "model.text_model",
            "vision": "model.vision_model",
            "connector": "model.connector",
        }
        left_out = ["lm_head", *(name for part, name in names.items() if part not in towers)]
        told = BitsAndBytesConfig(**STOCK[kind], llm_int8_skip_modules=left_out)
        stock = AutoModelForImageTextToText.from_pretrained(
            base, dtype=torch.float32, quantization_config=told
        )
        theirs: nn.Module = PeftModel.from_pretrained(stock, str(tmp_path), is_trainable=True)
        return AdaptedBench(bench=replace(plain_bench, ours=ours.eval(), stock=theirs.train()))

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_packed_equals_alone_over_a_quantised_language_model(quantized: Any, kind: str) -> None:
    quantized(kind).check(MIXED)


@pytest.mark.parametrize("kind", ["8 bit", "nf4"])
def test_packed_equals_alone_with_all_towers_quantised(quantized: Any, kind: str) -> None:
    chosen = quantized(kind, towers=("language", "vision", "connector"))
    chosen.check(MIXED)
    chosen.check(texts())


@pytest.mark.parametrize(("kind", "of_type"), [("nf4", "dora"), ("8 bit", "rslora")])
def test_other_types_of_adapter(quantized: Any, kind: str, of_type: str) -> None:
    """Not DoRA in 8 bits, which peft 0.21 by itself cannot run twice on a CPU: see
    checkpoints/test_quantization.py."""
    quantized(kind, of_type=of_type).check(MIXED)


@pytest.mark.parametrize("kind", ["8 bit", "nf4"])
def test_activation_checkpointing_with_frozen_embeddings(quantized: Any, kind: str) -> None:
    chosen = quantized(kind)
    chosen.bench.ours.activation_checkpointing_enable()
    chosen.bench.ours.train()
    chosen.check(MIXED)
