"""Stand-ins hold as many bytes as the layers of bitsandbytes that they stand for."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.load import load_checkpoint
from smolvlm.checkpoints.quantization import quantized_layers
from smolvlm.config.quantization import quantization_of
from smolvlm.plan.fake_run import PlannedModel, fake_run
from smolvlm.plan.parameters import part_sizes, restored_bytes
from smolvlm.plan.quantized import StandInLinear


@pytest.mark.parametrize(
    "settings",
    [{"bits": 8}, {"bits": 4}, {"bits": 4, "double_quant": False}],
    ids=["8 bits", "4 bits", "4 bits, one scale"],
)
def test_bytes_are_those_of_bitsandbytes(
    settings: dict[str, Any],
    run_config: Any,
    planned_model: PlannedModel,
    checkpoint_folders: dict[ModelType, Path],
) -> None:
    config = quantization_of(settings)
    true = load_checkpoint(str(checkpoint_folders["smolvlm"]), quantization=config)
    layers = quantized_layers(true.model, config)
    assert layers is not None
    overrides = [f"quantization.{name}={value}" for name, value in settings.items()]
    lora = ("adapters.language.type=lora", "train.connector_lr=0")
    with fake_run(run_config(*lora, *overrides), planned_model) as run:
        held = [layer for layer in run.model.modules() if isinstance(layer, StandInLinear)]
        size = sum(
            value.numel() * value.element_size()
            for layer in held
            for value in (layer.weight, *layer.buffers())
        )
        parts = part_sizes(run.model, optimizer="adamw_torch")
        full = restored_bytes(run.model)
    assert len(held) == sum(layers.num_layers.values())
    assert size == layers.held_bytes
    assert full == layers.full_bytes
    # A weight in 4 bits is still one parameter.
    assert parts["language layers"].num_parameters > full // 4
