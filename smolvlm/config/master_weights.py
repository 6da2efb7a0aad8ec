"""`train.master_weights`: what it cannot stand beside.

That the run computes in bfloat16 is for the device to say (`smolvlm/train/trial.py`).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from smolvlm.config.problems import Problem

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

_WRITES_BETWEEN_STEPS = "schedule_free"
"""How optimizers begin that exchange the weights for others outside of their step."""


def master_weights_problems(config: "RunConfig") -> Iterator[Problem]:
    """Yield what float32 copies of the weights cannot be stepped with."""
    train = config.train
    if not train.master_weights:
        return
    optimizer = str(train.arguments.get("optim", ""))
    refused = (
        (
            config.model.dtype != "float32",
            f"the weights are loaded in {config.model.dtype}, which has lost what a master holds",
            "set model.dtype: float32",
        ),
        (
            bool(config.quantization.bits),
            "quantised weights do not train, and the adapters over them are float32",
            "take one of the two out",
        ),
        (
            any(entry.type == "dora" for _, entry in config.adapters.entries()),
            "DoRA takes norms of the base's weights, which would be rounded",
            "choose another adapter, or take train.master_weights out",
        ),
        (
            train.engine == "fsdp2",
            "FSDP2's shards are the float32 weights, and are rounded as they are gathered",
            "take it out, or train with train.engine: ddp",
        ),
        (
            train.engine == "deepspeed",
            "DeepSpeed keeps float32 weights of its own, as its file says",
            "take it out, or train with train.engine: ddp",
        ),
        (
            optimizer.startswith(_WRITES_BETWEEN_STEPS),
            f"train.optim={optimizer} exchanges the weights outside of its steps",
            "take one of the two out",
        ),
        (
            bool(train.arguments.get("torch_compile")),
            "a compiled step was not tried with them",
            "take train.torch_compile out",
        ),
    )
    for is_refused, what, fix in refused:
        if is_refused:
            yield Problem(key="train.master_weights", value="true", what=what, fix=fix)
