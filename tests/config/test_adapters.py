"""The section `adapters`: words and mappings, rates, and combinations that could not train
anything."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.adapters import AdapterConfig
from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.errors import ConfigError


def test_without_the_section_no_tower_has_an_entry(load: Any) -> None:
    assert dict(load().adapters.entries()) == {}


def test_a_word_is_an_entry_with_the_defaults(load: Any) -> None:
    config = load("adapters.language=lora", "adapters.connector=full", "adapters.vision=frozen")
    assert dict(config.adapters.entries()) == {
        "language": AdapterConfig(type="lora", r=8, alpha=8.0, dropout=0.0),
        "connector": AdapterConfig(type="full"),
        "vision": AdapterConfig(type="frozen"),
    }


def test_a_mapping_says_the_rest_and_its_rate_is_the_adapters(load: Any) -> None:
    targets = "['*.q_proj', '*.v_proj']"
    config = load(
        "adapters.language={type: rslora, r: 16, alpha: 32, dropout: 0.1}",
        f"adapters.vision={{type: rslora, lr: 1e-4, targets: {targets}}}",
        "adapters.language.r=4",
    )
    assert config.adapters.language == AdapterConfig(type="rslora", r=4, alpha=32.0, dropout=0.1)
    assert config.adapters.vision.targets == ["*.q_proj", "*.v_proj"]
    assert [config.rate_of(part) for part in ("language", "connector", "vision")] == [
        2e-5,
        1e-4,
        1e-4,
    ]


def test_frozen_takes_the_default_rate_back_but_contradicts_a_given_one(load: Any) -> None:
    assert load("adapters.connector=frozen").train.connector_lr == 0
    with pytest.raises(
        ConfigError,
        match=r"the tower has a learning rate, train\.connector_lr = 0\.0001; set train",
    ):
        load("adapters.connector=frozen", "train.connector_lr=1e-4")


def test_it_is_written_and_read_back_equal(load: Any, tmp_path: Path) -> None:
    config = load(
        "adapters.language={type: lora, r: 4}", "adapters.connector=full", "adapters.vision=frozen"
    )
    (tmp_path / "run.yaml").write_text(dump_run_config(config))
    assert "connector: full\n" in dump_run_config(config)
    assert load_run_config(tmp_path / "run.yaml") == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "language=lorra",
            "adapters.language = 'lorra' (on the command line): must be 'lora', 'dora', 'rslora', ",
        ),
        ("language=lorra", "; did you mean `lora`?"),
        (
            "language=7",
            "adapters.language = 7 (on the command line): must be a word (lora, full, frozen ...) "
            "or a map",
        ),
        (
            "language={rank: 3}",
            "adapters.language.rank = 3 (on the command line): no such setting; the settings of an "
            "",
        ),
        ("language={drop_out: 0}", "no such setting; did you mean `dropout`?"),
        ("language.r=0", "adapters.language.r = 0 (on the command line): must be at least 1"),
        (
            "language.r=2.5",
            "adapters.language.r = 2.5 (on the command line): must be a whole number",
        ),
        (
            "language.dropout=1",
            "adapters.language.dropout = 1 (on the command line): must be below 1",
        ),
        ("language.alpha=0", "adapters.language.alpha = 0 (on the command line): must be above 0"),
        (
            "language.targets='*.q_proj'",
            "adapters.language.targets = '*.q_proj' (on the command line): must be a list",
        ),
        ("language.targets=[]", "must not be empty"),
        ("connector={type: full, r: 8}", "full takes no `r`"),
        (
            "text=lora",
            "adapters.text = 'lora' (on the command line): no such setting; the settings of "
            "`adapters` are",
        ),
        (
            "vision=lora",
            "it would learn nothing: train.vision_tower_lr is 0; set adapters.vision.lr or "
            "train.vision_",
        ),
        (
            "language={lr: 0}",
            "it would learn nothing: adapters.language.lr is 0; set adapters.language.lr or",
        ),
        (
            "vision=full",
            "nothing would be learned: train.vision_tower_lr is 0; set train.vision_tower_lr above "
            "0, or",
        ),
    ],
)
def test_an_entry_that_cannot_be_is_refused(load: Any, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(f"adapters.{override}")
    assert message in str(caught.value)
    assert "1 problem:" in str(caught.value)


def test_adapters_of_several_types_are_refused(load: Any) -> None:
    with pytest.raises(
        ConfigError,
        match=r"these have several \(language: lora, connector: dora\); give all of them",
    ):
        load("adapters.language=lora", "adapters.connector=dora")


def test_freezing_everything_is_refused(load: Any) -> None:
    with pytest.raises(ConfigError, match="all three learning rates are 0, so nothing is trained"):
        load("adapters.connector=frozen", "adapters.language=frozen")


def test_a_vision_cache_folder_has_no_effect_with_an_adapter_in_the_tower(load: Any) -> None:
    load("adapters.language=lora", "data.vision_cache_dir=c")
    with pytest.raises(ConfigError, match="has no effect with a vision tower that is trained"):
        load("adapters.vision={lr: 1e-4}", "data.vision_cache_dir=c")
