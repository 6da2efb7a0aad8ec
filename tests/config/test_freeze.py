"""The section `freeze`: what it may hold, and what it cannot ask for beside the other settings."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.freeze import FreezeConfig
from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.errors import ConfigError

VISION = "train.vision_tower_lr=1e-6"


def test_without_the_section_nothing_is_frozen(load: Any) -> None:
    assert load().freeze == FreezeConfig()
    assert not load().freeze.asked("language")


def test_it_is_written_and_read_back_equal(load: Any, tmp_path: Path) -> None:
    config = load(
        "freeze.embeddings=true",
        "freeze.language_layers=[0, 16]",
        "freeze.vision_layers=[2, 3]",
        VISION,
    )
    assert config.freeze == FreezeConfig(
        embeddings=True, language_layers=[0, 16], vision_layers=[2, 3]
    )
    assert config.freeze.asked("language") == ["embeddings", "language_layers"]
    assert config.freeze.asked("vision") == ["vision_layers"]
    (tmp_path / "run.yaml").write_text(dump_run_config(config))
    assert load_run_config(tmp_path / "run.yaml") == config


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["language_layers=[3, 3]"],
            "freeze.language_layers = [3, 3] (on the command line): must be two whole nu",
        ),
        (
            ["language_layers=[4, 2]"],
            "must be two whole numbers, the first layer and the one behind the last",
        ),
        (["language_layers=[-1, 2]"], "must be two whole numbers"),
        (["language_layers=[0]"], "such as [0, 16]"),
        (["language_layers=[0, 1, 2]"], "must be two whole numbers"),
        (
            ["language_layers=16"],
            "freeze.language_layers = 16 (on the command line): must be two whole numbers",
        ),
        (["language_layers=[0, 2.5]"], "must be two whole numbers"),
        (["embeddings=1"], "freeze.embeddings = 1 (on the command line): must be true or false"),
        (["layers=[0, 2]"], "freeze.layers = [0, 2] (on the command line): no such setting; "),
        (
            ["vision_layers=[0, 2]"],
            "has no effect: the tower is frozen, train.vision_tower_lr is 0; take it out, or g",
        ),
        (
            ["vision_embeddings=true"],
            "freeze.vision_embeddings = true (on the command line): has no effect: the tower",
        ),
    ],
)
def test_what_cannot_be_is_refused(load: Any, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*(f"freeze.{override}" for override in overrides))
    assert message in str(caught.value)
    assert "1 problem:" in str(caught.value)


def test_in_a_tower_with_an_adapter_there_is_nothing_left_to_freeze(load: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        load("adapters.language=lora", "freeze.language_layers=[0, 2]", "freeze.output_head=true")
    assert (
        "freeze.language_layers = [0, 2] (on the command line): has no effect: adapters.language "
        "freezes all of the "
        "tower's own weights; take it out; adapters.language.targets says which layers get an "
        "adapter"
    ) in str(caught.value)
    assert "2 problems:" in str(caught.value)
    load("adapters.language=lora", "freeze.vision_layers=[0, 2]", VISION)
