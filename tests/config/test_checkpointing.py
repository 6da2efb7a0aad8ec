"""`train.activation_checkpointing`: which towers, and what it cannot stand beside."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.errors import ConfigError

VISION = "train.vision_tower_lr=1e-6"
CHECKPOINTING = "train.activation_checkpointing"
REENTRANT = (
    f"{CHECKPOINTING}=true",
    "train.activation_checkpointing_kwargs={use_reentrant: true}",
)


@pytest.mark.parametrize("choice", [True, False, "language_model", "vision_tower"])
def test_a_choice_is_written_and_read_back(load: Any, tmp_path: Path, choice: object) -> None:
    config = load(f"{CHECKPOINTING}={str(choice).lower()}", VISION)
    assert config.train.activation_checkpointing is choice or (
        config.train.activation_checkpointing == choice
    )
    assert "activation_checkpointing" not in config.train.arguments
    (tmp_path / "run.yaml").write_text(dump_run_config(config))
    assert load_run_config(tmp_path / "run.yaml") == config


@pytest.mark.parametrize("choice", ["vision", "language", "both", "1", "null", "[vision_tower]"])
def test_other_words_are_refused_with_those_that_are_known(load: Any, choice: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"{CHECKPOINTING}={choice}", VISION)
    assert "must be true, false, 'language_model' or 'vision_tower'" in str(caught.value)
    assert "1 problem:" in str(caught.value)


def test_a_frozen_tower_has_no_activations_to_compute_again(load: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"{CHECKPOINTING}=vision_tower")
    assert (
        "train.activation_checkpointing = 'vision_tower' (on the command line): has no effect: the "
        "tower is frozen, train.vision_tower_lr is 0, and keeps no activations; set it to "
        "language_model, or give the tower a rate above 0"
    ) in str(caught.value)
    for choice in ("true", "language_model"):
        load(f"{CHECKPOINTING}={choice}")
    load(f"{CHECKPOINTING}=vision_tower", "adapters.vision={lr: 1e-4}")


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        ([VISION, "freeze.vision_embeddings=true"], "freeze.vision_embeddings"),
        (["adapters.vision={lr: 1e-4}"], "adapters.vision"),
    ],
)
def test_reentrant_checkpointing_above_frozen_vision_embeddings_is_refused(
    load: Any, overrides: list[str], cause: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides, *REENTRANT)
    assert (
        f"would get no gradient, its embeddings being frozen ({cause}); take use_reentrant out"
        in str(caught.value)
    )
    with pytest.raises(ConfigError):
        load(*overrides, f"{CHECKPOINTING}=vision_tower", REENTRANT[1])
    load(*overrides, f"{CHECKPOINTING}=language_model", REENTRANT[1])
    load(*overrides, REENTRANT[0])
    load(*overrides, REENTRANT[1])


@pytest.mark.parametrize(
    "overrides", [[VISION], ["freeze.embeddings=true"], ["adapters.language=lora"]]
)
def test_reentrant_checkpointing_elsewhere_loads(load: Any, overrides: list[str]) -> None:
    load(*overrides, *REENTRANT)
