"""The law holds with adapters on every tower: packed through our model = alone through the stock
class and peft's own.

Both hold the same adapter, ours in place, theirs loaded by `PeftModel.from_pretrained` from what
ours saved; loss and the gradient of every trained parameter are compared as in
`test_packed_equals_alone`, with its tolerances.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.peft_layers import PREFIX, adapter_tensors
from smolvlm.config.adapters import AdapterConfig
from smolvlm.inspect.verify import GRADIENT_TOLERANCE, LOSS_TOLERANCE, gradient_errors
from smolvlm.model.towers import TOWERS, Tower, is_adapter
from tests.parity.test_packed_equals_alone import MIXED, texts

# peft 0.21 asks the stock model by an old name, which transformers 5.23 warns of.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AdaptedBench:
    """A bench whose stock model is peft's."""

    bench: Any

    def check(self, samples: Sequence[Any]) -> None:
        packed, alone = self.bench.packed(samples), self.bench.alone(samples)
        assert abs(packed.loss - alone.loss) <= LOSS_TOLERANCE * max(1.0, alone.loss)
        theirs = {
            name.removeprefix(PREFIX): value
            for name, value in alone.gradients.items()
            if is_adapter(name)
        }
        ours = {name: value for name, value in packed.gradients.items() if is_adapter(name)}
        assert theirs.keys() == ours.keys()
        assert all(value is None for name, value in packed.gradients.items() if name not in ours)
        errors = gradient_errors(ours, theirs)
        assert max(errors.values()) <= GRADIENT_TOLERANCE, errors


@pytest.fixture
def adapted(bench: Any, tmp_path: Path) -> Callable[..., AdaptedBench]:
    """Makes a bench of two copies with the same adapter, its matrices random."""

    def make(kind: Any, *, without: Sequence[Tower] = ()) -> AdaptedBench:
        kinds = {
            tower: AdapterConfig(type=kind, r=2 + number, alpha=3)
            for number, tower in enumerate(TOWERS)
            if tower not in without
        }
        ours, stock = copy.deepcopy(bench.ours), copy.deepcopy(bench.stock)
        attached = attach_adapters(ours, kinds, base="", seed=0)
        generator = torch.Generator().manual_seed(0)
        for name, value in adapter_tensors(ours).items():
            if ".lora_B." in name:
                value.copy_(torch.randn(value.shape, generator=generator) * 0.1)
        freeze(ours, LearningRates(adapter=dict.fromkeys(kinds, 1.0)))
        attached.save(ours, tmp_path)
        theirs = PeftModel.from_pretrained(stock, str(tmp_path), is_trainable=True)
        return AdaptedBench(bench=replace(bench, ours=ours.eval(), stock=theirs.eval()))

    return make


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_packed_equals_alone_with_adapters_on_all_towers(adapted: Any, kind: str) -> None:
    adapted(kind).check(MIXED)


def test_text_alone_leaves_the_towers_adapters_without_gradient(adapted: Any) -> None:
    adapted("lora").check(texts())


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_activation_checkpointing_with_frozen_embeddings(adapted: Any, kind: str) -> None:
    chosen = adapted(kind)
    chosen.bench.ours.activation_checkpointing_enable()
    chosen.bench.ours.train()
    chosen.check(MIXED)
    chosen.check(texts())


def test_an_adapter_behind_frozen_towers(adapted: Any) -> None:
    chosen = adapted("lora", without=["vision_tower", "connector"])
    chosen.bench.ours.activation_checkpointing_enable()
    chosen.bench.ours.train()
    chosen.check(MIXED)


@pytest.mark.parametrize("kind", ["lora", "dora", "rslora"])
def test_the_first_steps_loss_is_the_bases_to_the_bit(bench: Any, kind: Any) -> None:
    before = bench.packed(MIXED).loss
    ours = copy.deepcopy(bench.ours)
    attach_adapters(ours, {tower: AdapterConfig(type=kind) for tower in TOWERS}, base="", seed=0)
    assert replace(bench, ours=ours).packed(MIXED).loss == before
