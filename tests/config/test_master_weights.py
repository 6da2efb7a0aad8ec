"""What float32 masters cannot stand beside is refused with what to do."""

from typing import Any

import pytest

from smolvlm.errors import ConfigError

ON = "train.master_weights=true"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.dtype=bfloat16"], "set model.dtype: float32"),
        (["quantization.bits=8", "adapters.language={type: lora}"], "quantised weights"),
        (["adapters.language={type: dora}"], "choose another adapter"),
        (["train.engine=fsdp2"], "FSDP2's shards are the float32 weights"),
        (
            ["train.engine={type: deepspeed, config: zero2.json}"],
            "DeepSpeed keeps float32 weights of its own",
        ),
        (["train.optim=schedule_free_adamw"], "exchanges the weights outside of its steps"),
        (["train.torch_compile=true"], "take train.torch_compile out"),
    ],
)
def test_what_cannot_work_is_refused(load: Any, overrides: list[str], message: str) -> None:
    load(*overrides)
    with pytest.raises(ConfigError) as caught:
        load(*overrides, ON)
    assert "train.master_weights = true" in str(caught.value)
    assert message in str(caught.value)


def test_beside_adapters_it_is_allowed(load: Any) -> None:
    assert load(ON, "adapters.language={type: lora}").train.master_weights
    assert not load().train.master_weights
