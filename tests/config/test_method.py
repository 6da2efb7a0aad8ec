"""A method's settings: the mapping and the flat spelling are one, and nothing of another method is
taken.

Where a preference run's reference comes from: what cannot take effect, or would not be the model at
the start.
"""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.config.load import config_from, dump_run_config
from smolvlm.config.method import SETTINGS_OF_METHOD, DpoMethod, SftMethod
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
    content = {
        "model": {"path": "owner/name"},
        "data": {"mixture": []},
        "train": {"output_dir": "out", **train},
    }
    return config_from(content, overrides, where="settings")


@given(names=st.sets(st.sampled_from(sorted(VALUES))))
def test_the_mapping_is_the_flat_spelling(names: set[str]) -> None:
    chosen = {name: VALUES[name] for name in names}
    assert config({"method": {"type": "dpo", **chosen}}) == config({"method": "dpo", **chosen})


def test_every_setting_of_a_method_is_one_of_train() -> None:
    names = {name for settings in SETTINGS_OF_METHOD.values() for name in settings}
    assert names == VALUES.keys()
    assert names <= TrainConfig.settings().keys()


def test_what_is_written_back_loads_equal() -> None:
    run = config({"method": {"type": "dpo", "beta": 0.3}})
    assert config_from(yaml.safe_load(dump_run_config(run)), where="run.yaml") == run
    assert config({"method": {"type": "sft"}}).train.method == SftMethod()


def test_what_is_written_is_the_flat_spelling() -> None:
    train = yaml.safe_load(dump_run_config(config({"method": {"type": "dpo", "beta": 0.3}})))[
        "train"
    ]
    assert {name: train[name] for name in ("method", "beta", "loss_type")} == {
        "method": "dpo",
        "beta": 0.3,
        "loss_type": "sigmoid",
    }
    assert not VALUES.keys() & yaml.safe_load(dump_run_config(config({})))["train"].keys()


def test_another_methods_defaults_which_earlier_versions_wrote_are_passed_over() -> None:
    defaults = {name: DpoMethod.model_fields[name].default for name in VALUES}
    assert config({"method": "sft", **defaults}) == config({})
    with pytest.raises(
        ConfigError, match=r"train\.beta = 0\.2: has no effect with train\.method = sft"
    ):
        config(defaults | {"beta": 0.2})


@pytest.mark.parametrize("override", ["train.beta=0.7", "train.method.beta=0.7"])
def test_an_override_wins_over_the_mapping(override: str) -> None:
    assert config({"method": {"type": "dpo", "beta": 0.3}}, override).train.method == DpoMethod(
        beta=0.7
    )


@pytest.mark.parametrize(
    ("train", "text"),
    [
        ({"method": {}}, "train.method.type: is required, and missing; write sft or dpo"),
        (
            {"method": {"type": "dop"}},
            "train.method.type = 'dop': no such method; did you mean `dpo`?",
        ),
        (
            {"method": {"type": "dpo", "bta": 0.1}},
            "train.method.bta = 0.1: no setting of the method dpo",
        ),
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


DPO = ("train.method=dpo", "train.language_model_lr=1e-4", "train.connector_lr=0")
LORA = (*DPO, "adapters.language=lora")
OFF, COPY = "train.reference=adapter_off", "train.reference=copy"


def test_it_is_computed_before_unless_asked_otherwise(load: Any) -> None:
    assert load(*DPO).train.method.reference == "precomputed"
    assert load(*LORA, OFF).train.method.reference == "adapter_off"
    assert load(*DPO, COPY).train.method.reference == "copy"
    assert (
        load(*DPO, "train.reference_model=some/model").train.method.reference_model == "some/model"
    )
    assert load(*DPO, "adapters.language={type: pissa}", COPY).train.method.reference == "copy"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            (COPY,),
            "train.reference = 'copy' (on the command line): has no effect with train.method = "
            "sft; take it out",
        ),
        (("train.reference_model=a/b",), "has no effect with train.method = sft"),
        (
            (*LORA, OFF, "train.loss_type=simpo"),
            "no effect with train.loss_type = simpo, which needs no reference",
        ),
        (
            (*DPO, "train.reference_model=a/b", "train.loss_type=orpo"),
            "no effect with train.loss_type = orpo, which",
        ),
        (
            (*DPO, "train.reference=adapters_off"),
            "must be 'precomputed', 'adapter_off' or 'copy'; did you mean `adapt",
        ),
        (
            (*DPO, OFF),
            "no tower has an adapter that could be switched off; name adapters, or set "
            "train.reference: pre",
        ),
        (
            (*LORA, OFF, "train.connector_lr=1e-4"),
            "a tower trains all its weights (train.connector_lr above 0), so without adapters it "
            "is not what it was",
        ),
        (
            (*DPO, OFF, "adapters.language={type: pissa}"),
            "PiSSA takes its first values out of the base",
        ),
        (
            (*LORA, OFF, "train.reference_model=a/b"),
            "the reference is the model itself with train.reference = adapter",
        ),
        (
            (*DPO, COPY, "train.reference_model=a/b"),
            "the reference is the model itself with train.reference = copy",
        ),
        (
            (*DPO, "train.reference_model=./none"),
            "train.reference_model = './none' (on the command line): no such fol",
        ),
        (
            (*DPO, COPY, "train.fsdp=full_shard"),
            "a reference that is asked in the step was not tried with train.engine: fsdp2",
        ),
    ],
)
def test_what_cannot_be_is_refused(load: Any, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert message in str(caught.value)
    assert "1 problem:" in str(caught.value)
