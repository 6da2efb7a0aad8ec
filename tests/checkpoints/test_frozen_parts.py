"""Parts of towers as names of parameters, at the published dimensions and where they do not fit."""

from typing import Any

import pytest
import torch

from smolvlm.build.configs import published_config
from smolvlm.checkpoints.frozen_parts import frozen_parts
from smolvlm.checkpoints.learning_rates import LearningRates
from smolvlm.config.freeze import FreezeConfig
from smolvlm.errors import ConfigError
from smolvlm.model.modeling_smolvlm import MODEL_CLASSES
from smolvlm.model.towers import TOWERS, tower_of


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    with torch.device("meta"):
        model = MODEL_CLASSES["smolvlm"](published_config("256M"))
    return {name: value.numel() for name, value in model.named_parameters()}


@pytest.fixture(scope="module")
def names(sizes: dict[str, int]) -> list[str]:
    return list(sizes)


def frozen(names: list[str], **settings: Any) -> set[str]:
    """Return which parameters of the 256M do not train, all towers having a rate."""
    rates = LearningRates(
        full=dict.fromkeys(TOWERS, 1.0),
        frozen=frozen_parts(FreezeConfig(**settings), published_config("256M")),
    )
    return {name for name in names if not rates.of(name)}


@pytest.mark.parametrize(
    ("settings", "beginnings"),
    [
        ({}, ()),
        ({"embeddings": True}, ("model.text_model.embed_tokens.",)),
        ({"output_head": True}, ("lm_head.",)),
        ({"vision_embeddings": True}, ("model.vision_model.embeddings.",)),
        ({"language_layers": [1, 3]}, ("model.text_model.layers.1.", "model.text_model.layers.2.")),
        ({"language_layers": [29, 30]}, ("model.text_model.layers.29.", "model.text_model.norm.")),
        ({"vision_layers": [0, 1]}, ("model.vision_model.encoder.layers.0.",)),
        (
            {"vision_layers": [11, 12]},
            ("model.vision_model.encoder.layers.11.", "model.vision_model.post_layernorm."),
        ),
    ],
)
def test_exactly_the_named_parts_are_frozen(
    names: list[str], settings: dict[str, Any], beginnings: tuple[str, ...]
) -> None:
    expected = {name for name in names if name.startswith(beginnings)}
    assert frozen(names, **settings) == expected
    assert len({name for name in expected if "layers" in name}) in (0, 9, 16, 18)


def test_the_documented_example_freezes_so_many_parameters(sizes: dict[str, int]) -> None:
    """docs/freezing.md shows them."""
    kept = frozen(
        list(sizes),
        embeddings=True,
        output_head=True,
        language_layers=[0, 16],
        vision_embeddings=True,
        vision_layers=[0, 6],
    )
    counts = {
        tower: sum(sizes[name] for name in kept if tower_of(name) == tower) for tower in TOWERS
    }
    assert counts == {"vision_tower": 43_904_256, "connector": 0, "language_model": 113_412_096}


def test_words_say_how_many_layers_there_are() -> None:
    settings = FreezeConfig(embeddings=True, language_layers=[0, 16], vision_layers=[11, 12])
    parts = frozen_parts(settings, published_config("256M"))
    assert [(part.tower, part.words) for part in parts] == [
        ("language_model", "embeddings"),
        ("language_model", "layers 0 to 15 of 30"),
        ("vision_tower", "layers 11 to 11 of 12"),
    ]


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        (
            {"language_layers": [0, 31]},
            "freeze.language_layers: [0, 31] goes beyond the 30 layers of the language model\n"
            "  fix: layers count from 0: write an end of 30 at most",
        ),
        (
            {"vision_layers": [12, 13]},
            "freeze.vision_layers: [12, 13] goes beyond the 12 layers of the vision tower\n"
            "  fix: layers count from 0: write an end of 12 at most",
        ),
        (
            {"embeddings": True, "output_head": True, "language_layers": [0, 30]},
            "freeze: every part of the language model is frozen, and it has a learning rate\n"
            "  fix: set train.language_model_lr: 0 instead, or leave a part out",
        ),
        (
            {"vision_embeddings": True, "vision_layers": [0, 12]},
            "freeze: every part of the vision tower is frozen, and it has a learning rate\n"
            "  fix: set train.vision_tower_lr: 0 instead, or leave a part out",
        ),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError) as caught:
        frozen_parts(FreezeConfig(**settings), published_config("256M"))
    assert str(caught.value) == error


@pytest.mark.parametrize(
    "settings",
    [
        {"embeddings": True, "language_layers": [0, 30]},
        {"embeddings": True, "output_head": True, "language_layers": [1, 30]},
        {"vision_embeddings": True, "vision_layers": [0, 11]},
        {"vision_layers": [0, 12]},
    ],
)
def test_one_part_left_is_enough(names: list[str], settings: dict[str, Any]) -> None:
    tower = (
        "model.vision_model." if "vision_layers" in settings else ("model.text_model.", "lm_head.")
    )
    left = {name for name in names if name.startswith(tower)} - frozen(names, **settings)
    assert left


@pytest.mark.parametrize("alone", ["embeddings", "output_head"])
def test_a_tied_head_and_its_embeddings_go_together(alone: str) -> None:
    config = published_config("256M")
    config.tie_word_embeddings = True
    with pytest.raises(ConfigError) as caught:
        frozen_parts(FreezeConfig(**{alone: True}), config)
    assert str(caught.value) == (
        f"freeze.{alone}: the checkpoint ties the output head to the embeddings: they are one "
        "matrix\n"
        "  fix: set freeze.embeddings and freeze.output_head both, or neither"
    )
    both = frozen_parts(FreezeConfig(embeddings=True, output_head=True), config)
    with torch.device("meta"):
        model = MODEL_CLASSES["smolvlm"](config)
    rates = LearningRates(full={"language_model": 1.0}, frozen=both)
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert {
        name for name, _ in model.named_parameters() if "text_model" in name and not rates.of(name)
    } == {"model.text_model.embed_tokens.weight"}
