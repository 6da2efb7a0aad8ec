"""Where a preference run's reference comes from: what cannot take effect, or would not be the model at the start."""

from typing import Any

import pytest

from smolvlm.errors import ConfigError

DPO = ("train.method=dpo", "train.language_model_lr=1e-4", "train.connector_lr=0")
LORA = (*DPO, "adapters.language=lora")
OFF, COPY = "train.reference=adapter_off", "train.reference=copy"


def test_it_is_computed_before_unless_asked_otherwise(load: Any) -> None:
    assert load(*DPO).train.reference == "precomputed"
    assert load(*LORA, OFF).train.reference == "adapter_off"
    assert load(*DPO, COPY).train.reference == "copy"
    assert load(*DPO, "train.reference_model=some/model").train.reference_model == "some/model"
    assert load(*DPO, "adapters.language={type: pissa}", COPY).train.reference == "copy"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((COPY,), "train.reference = 'copy' (on the command line): has no effect with train.method = sft; take it out"),
        (("train.reference_model=a/b",), "has no effect with train.method = sft"),
        ((*LORA, OFF, "train.loss_type=simpo"), "no effect with train.loss_type = simpo, which needs no reference"),
        ((*DPO, "train.reference_model=a/b", "train.loss_type=orpo"), "no effect with train.loss_type = orpo, which"),
        ((*DPO, "train.reference=adapters_off"), "must be 'precomputed', 'adapter_off' or 'copy'; did you mean `adapt"),
        ((*DPO, OFF), "no tower has an adapter that could be switched off; name adapters, or set train.reference: pre"),
        (
            (*LORA, OFF, "train.connector_lr=1e-4"),
            "a tower trains all its weights (train.connector_lr above 0), so without adapters it is not what it was",
        ),
        ((*DPO, OFF, "adapters.language={type: pissa}"), "PiSSA takes its first values out of the base"),
        ((*LORA, OFF, "train.reference_model=a/b"), "the reference is the model itself with train.reference = adapter"),
        ((*DPO, COPY, "train.reference_model=a/b"), "the reference is the model itself with train.reference = copy"),
        ((*DPO, "train.reference_model=./none"), "train.reference_model = './none' (on the command line): no such fol"),
        ((*DPO, COPY, "train.fsdp=full_shard"), "a reference that is asked in the step was not tried with train.fsdp"),
    ],
)
def test_what_cannot_be_is_refused(load: Any, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(*overrides)
    assert message in str(caught.value)
    assert "1 problem:" in str(caught.value)
