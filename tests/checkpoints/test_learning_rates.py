"""Each parameter has one rate, by its tower and kind; those with a rate above 0 train, and no
other."""

import pytest
from torch import nn

from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.frozen_parts import frozen_parts
from smolvlm.checkpoints.learning_rates import LearningRates, freeze, kind_of
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.freeze import FreezeConfig
from smolvlm.model.towers import TOWERS, Tower, is_adapter, parameters_of, tower_of


def trained(model: nn.Module) -> set[str]:
    return {name for name, value in model.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("tower", TOWERS)
def test_exactly_the_towers_with_a_learning_rate_train(
    checkpoint: Checkpoint, tower: Tower
) -> None:
    model: nn.Module = checkpoint.model
    freeze(model, LearningRates())
    assert not trained(model)
    freeze(model, LearningRates(full={other: 1e-4 if other == tower else 0.0 for other in TOWERS}))
    assert trained(model) == {name for name, _ in parameters_of(model, tower)}


def test_an_adapter_has_its_own_rate_and_its_towers_weights_none(checkpoint: Checkpoint) -> None:
    attach_adapters(checkpoint.model, {"language_model": AdapterConfig(r=2)}, base="", seed=0)
    rates = LearningRates(full={"connector": 2e-4}, adapter={"language_model": 1e-3})
    assert [rates.of_tower(tower) for tower in TOWERS] == [0.0, 2e-4, 1e-3]
    freeze(checkpoint.model, rates)
    for name in trained(checkpoint.model):
        assert (kind_of(name), rates.of(name)) == (
            ("adapter", 1e-3) if tower_of(name) == "language_model" else ("full", 2e-4)
        )
    assert {tower_of(name) for name in trained(checkpoint.model) if is_adapter(name)} == {
        "language_model"
    }
    assert "model.text_model.norm.weight" not in trained(checkpoint.model)


def test_a_tower_may_train_its_weights_beside_its_adapter(checkpoint: Checkpoint) -> None:
    attach_adapters(checkpoint.model, {"language_model": AdapterConfig(r=2)}, base="", seed=0)
    rates = LearningRates(full={"language_model": 1e-5}, adapter={"language_model": 1e-3})
    freeze(checkpoint.model, rates)
    assert {rates.of(name) for name in trained(checkpoint.model)} == {1e-5, 1e-3}


def test_frozen_parts_have_no_rate(checkpoint: Checkpoint) -> None:
    settings = FreezeConfig(embeddings=True, vision_embeddings=True, vision_layers=[1, 2])
    rates = LearningRates(
        full=dict.fromkeys(TOWERS, 1.0), frozen=frozen_parts(settings, checkpoint.model.config)
    )
    freeze(checkpoint.model, rates)
    left = {name for name, _ in checkpoint.model.named_parameters()} - trained(checkpoint.model)
    assert {name.rpartition("layers.1.")[0] or name for name in left} == {
        "model.text_model.embed_tokens.weight",
        "model.vision_model.embeddings.patch_embedding.weight",
        "model.vision_model.embeddings.patch_embedding.bias",
        "model.vision_model.embeddings.position_embedding.weight",
        "model.vision_model.encoder.",
        "model.vision_model.post_layernorm.weight",
        "model.vision_model.post_layernorm.bias",
    }
