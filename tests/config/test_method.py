"""A method as a mapping: the same settings as the flat spelling, and nothing of another method."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.config.load import config_from, dump_run_config
from smolvlm.config.method import SETTINGS_OF_METHOD
from smolvlm.config.schema import RunConfig, TrainConfig
from smolvlm.errors import ConfigError

VALUES: dict[str, Any] = {
    "loss_type": "sigmoid",
    "beta": 0.3,
    "label_smoothing": 0.1,
    "margin": 0.0,
    "sft_weight": 0.5,
    "reference": "precomputed",
    "reference_model": "some/model",
}


def config(train: dict[str, Any], *overrides: str) -> RunConfig:
    content = {"model": {"path": "owner/name"}, "data": {"mixture": []}, "train": {"output_dir": "out", **train}}
    return config_from(content, overrides, where="settings")


@given(names=st.sets(st.sampled_from(sorted(VALUES))))
def test_the_mapping_is_the_flat_spelling(names: set[str]) -> None:
    chosen = {name: VALUES[name] for name in names}
    assert config({"method": {"type": "dpo", **chosen}}) == config({"method": "dpo", **chosen})


def test_every_setting_of_a_method_is_one_of_train() -> None:
    names = {name for own in SETTINGS_OF_METHOD.values() for name in own}
    assert names == VALUES.keys()
    assert names <= TrainConfig.model_fields.keys()


def test_what_is_written_back_loads_equal() -> None:
    own = config({"method": {"type": "dpo", "beta": 0.3}})
    assert config_from(yaml.safe_load(dump_run_config(own)), where="run.yaml") == own
    assert config({"method": {"type": "sft"}}).train.method == "sft"


@pytest.mark.parametrize("override", ["train.beta=0.7", "train.method.beta=0.7"])
def test_an_override_wins_over_the_mapping(override: str) -> None:
    assert config({"method": {"type": "dpo", "beta": 0.3}}, override).train.beta == 0.7


@pytest.mark.parametrize(
    ("train", "text"),
    [
        ({"method": {}}, "train.method.type: is required, and missing; write sft or dpo"),
        ({"method": {"type": "dop"}}, "train.method.type = 'dop': no such method; did you mean `dpo`?"),
        ({"method": {"type": "dpo", "bta": 0.1}}, "train.method.bta = 0.1: no setting of the method dpo"),
        ({"method": {"type": "sft", "beta": 0.1}}, "it belongs to dpo"),
        ({"method": {"type": "dpo", "beta": 0.1}, "beta": 0.2}, "given twice: train.beta = 0.2"),
        ({"method": {"type": "dpo", "beta": -1}}, "train.beta = -1: must be above 0"),
        ({"method": ["dpo"]}, "train.method"),
    ],
)
def test_a_wrong_mapping_is_named(train: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(train)
    assert text in str(caught.value)
