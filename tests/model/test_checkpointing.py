"""With parts frozen gradients end where nothing beneath trains, and recomputing activations changes
none of them.

The trap: the reentrant kind of checkpointing passes a gradient on only where a layer's input needs
one, and says nothing. transformers therefore makes the embeddings' output need one; here that is so
for the reentrant kind alone, and where it is not enough `smolvlm.config.freeze` refuses it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from smolvlm.checkpoints.adapters import attach_adapters
from smolvlm.checkpoints.frozen_parts import frozen_parts
from smolvlm.checkpoints.learning_rates import LearningRates, freeze
from smolvlm.checkpoints.load import Checkpoint
from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.checkpointing import Checkpointing
from smolvlm.config.freeze import FreezeConfig
from smolvlm.model.checkpointing import checkpointed_towers
from smolvlm.model.towers import TOWERS, Tower, is_adapter

TEXT = [((), "Hi there", "Hello."), ((), "Count to three", "One, two, three.")]
Gradients = dict[str, Tensor | None]

# torch warns of a frozen tower's layers, for which it is as it should be.
without_torchs_warning = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")


def gradients(model: Any, pack: Any) -> Gradients:
    """The trained parameters' gradients of one pack."""
    model.zero_grad()
    model(pack=pack.model_tensors(), normalizer=float(pack.target_weights.sum())).loss.backward()
    return {name: value.grad for name, value in model.named_parameters() if value.requires_grad}


def assert_equal(found: Gradients, expected: Gradients) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        own = found[name]
        assert (own is None) == (gradient is None), name
        assert own is None or gradient is None or torch.equal(own, gradient), name


def full(checkpoint: Checkpoint, *towers: Tower, **settings: Any) -> Any:
    """Freeze all but some towers, and parts of those."""
    parts = frozen_parts(FreezeConfig(**settings), checkpoint.model.config)
    freeze(checkpoint.model, LearningRates(full=dict.fromkeys(towers, 1.0), frozen=parts))
    return checkpoint.model.train()


def adapted(checkpoint: Checkpoint, *towers: Tower, dropout: float = 0.0) -> Any:
    """Put adapters into some towers, none of whose matrices is zero."""
    kinds = {tower: AdapterConfig(r=2, dropout=dropout) for tower in towers}
    attach_adapters(checkpoint.model, kinds, base="", seed=0)
    freeze(checkpoint.model, LearningRates(adapter=dict.fromkeys(towers, 1.0)))
    generator = torch.Generator().manual_seed(0)
    for name, value in checkpoint.model.named_parameters():
        if is_adapter(name):
            value.data = torch.randn(value.shape, generator=generator) * 0.1
    return checkpoint.model.train()


MODELS: Mapping[str, Callable[[Checkpoint], Any]] = {
    "all": lambda own: full(own, *TOWERS),
    "language": lambda own: full(own, "language_model"),
    "language, embeddings frozen": lambda own: full(own, "language_model", embeddings=True),
    "language, upper half": lambda own: full(
        own, "language_model", embeddings=True, language_layers=[0, 1]
    ),
    "all, both embeddings frozen": lambda own: full(
        own, *TOWERS, embeddings=True, vision_embeddings=True
    ),
    "tower, upper half": lambda own: full(
        own, "vision_tower", vision_embeddings=True, vision_layers=[0, 1]
    ),
    "connector": lambda own: full(own, "connector"),
    "adapter": lambda own: adapted(own, "language_model"),
    "adapters": lambda own: adapted(own, *TOWERS),
}
NO_LANGUAGE = ("tower, upper half", "connector")
LOSES_GRADIENTS = {"all, both embeddings frozen": 32, "tower, upper half": 16, "adapters": 24}
"""Models in which the reentrant kind is refused, and how many parameters it would leave without a
gradient."""


@pytest.mark.parametrize("has_pictures", [True, False])
@pytest.mark.parametrize("name", MODELS)
def test_recomputed_activations_give_the_same_gradients(
    checkpoint: Checkpoint, pack_of, picture, name: str, has_pictures: bool
) -> None:
    model = MODELS[name](checkpoint)
    model.touches_vision = name in NO_LANGUAGE
    pack = pack_of([([picture(0)], "What?", "Noise."), *TEXT] if has_pictures else TEXT)
    expected = gradients(model, pack)
    model.activation_checkpointing_enable()
    assert_equal(gradients(model, pack), expected)
    if has_pictures:
        assert all(gradient is not None for gradient in expected.values())


@without_torchs_warning
@pytest.mark.parametrize("name", MODELS)
def test_the_reentrant_kind_gives_the_same_or_is_refused_with_reason(
    checkpoint: Checkpoint, pack_of, picture, name: str
) -> None:
    model = MODELS[name](checkpoint)
    pack = pack_of([([picture(0)], "What?", "Noise."), *TEXT])
    expected = gradients(model, pack)
    model.activation_checkpointing_enable({"use_reentrant": True})
    found = gradients(model, pack)
    if name in LOSES_GRADIENTS:
        lost = [name for name, gradient in found.items() if gradient is None]
        assert len(lost) == LOSES_GRADIENTS[name]
        assert all(name.startswith("model.vision_model.encoder.layers.") for name in lost)
    else:
        assert_equal(found, expected)


@pytest.mark.parametrize("name", ["all", "all, both embeddings frozen", "adapters"])
@pytest.mark.parametrize("choice", [False, "language_model", "vision_tower", True])
def test_the_layers_of_the_chosen_towers_alone_are_computed_again(
    checkpoint: Checkpoint, pack_of, picture, name: str, choice: Checkpointing
) -> None:
    model = MODELS[name](checkpoint)
    pack = pack_of([([picture(0), picture(1)], "Which?", "Noise."), *TEXT])
    expected = gradients(model, pack)
    towers = checkpointed_towers(choice)
    model.checkpointed_towers = towers
    if towers:
        model.activation_checkpointing_enable()
    calls: Counter[str] = Counter()
    products = {
        "vision_tower": model.model.vision_model.encoder.layers[0].mlp.fc1,
        "language_model": model.model.text_model.layers[0].mlp.up_proj,
    }
    for tower, product in products.items():
        product.register_forward_hook(lambda *_, tower=tower: calls.update([tower]))
    assert_equal(gradients(model, pack), expected)
    assert calls == {tower: 2 if tower in towers else 1 for tower in products}


def test_a_later_choice_replaces_an_earlier_one(checkpoint: Checkpoint) -> None:
    model: Any = checkpoint.model
    vision, language = model.model.vision_model, model.model.text_model
    for choice in (True, "vision_tower", "language_model"):
        model.checkpointed_towers = checkpointed_towers(choice)
        model.activation_checkpointing_enable()
        assert vision.is_activation_checkpointing == (choice in (True, "vision_tower"))
        assert language.is_activation_checkpointing == (choice in (True, "language_model"))


def test_an_adapters_dropout_is_the_same_when_recomputed(checkpoint: Checkpoint, pack_of) -> None:
    model, pack = adapted(checkpoint, "language_model", dropout=0.5), pack_of(TEXT)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(gradients(model, pack))
        model.activation_checkpointing_enable()
    assert_equal(found[1], found[0])


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_gradients_end_below_the_lowest_layer_that_trains(
    checkpoint: Checkpoint, pack_of, picture, is_checkpointed: bool
) -> None:
    model = MODELS["language, upper half"](checkpoint)
    if is_checkpointed:
        model.activation_checkpointing_enable()
    seen: dict[str, bool] = {}
    layers = {
        f"layer {number}": layer for number, layer in enumerate(model.model.text_model.layers)
    }
    for name, module in {"embeddings": model.get_input_embeddings(), **layers}.items():
        module.register_forward_hook(
            lambda _own, _in, out, name=name: seen.update({name: out.requires_grad})
        )
    gradients(model, pack_of([([picture(0)], "What?", "Noise."), *TEXT]))
    assert seen == {"embeddings": False, "layer 0": False, "layer 1": True}


def test_gradients_end_in_the_middle_of_the_tower(checkpoint: Checkpoint, pack_of, picture) -> None:
    model = MODELS["tower, upper half"](checkpoint)
    seen = []
    for layer in model.model.vision_model.encoder.layers:
        layer.register_forward_hook(lambda _own, _in, out: seen.append(out.requires_grad))
    found = gradients(model, pack_of([([picture(0)], "What?", "Noise.")]))
    assert seen == [False, True]
    assert {name.split("layers.1.")[0] for name in found} == {
        "model.vision_model.encoder.",
        "model.vision_model.post_layernorm.weight",
        "model.vision_model.post_layernorm.bias",
    }
    assert all(gradient is not None for gradient in found.values())
