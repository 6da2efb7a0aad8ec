"""What `inspect --verify` leaves out of a run is said."""

from typing import Any

import pytest
import torch

from smolvlm import api
from smolvlm.config.schema import RunConfig
from smolvlm.inspect.not_covered import not_covered

ROWS = [{"question": "Hi?", "answer": "Hello."}]


def run(
    *, dropout: float = 0.0, vision_cache: bool = False, use_cpu: bool = True, **train: Any
) -> RunConfig:
    settings = {
        "model": {"path": "a/b"},
        "data": {"vision_cache": vision_cache},
        "train": {"output_dir": "out", "use_cpu": use_cpu, **train},
        "adapters": {"language": {"type": "lora", "dropout": dropout}},
    }
    return api.load_config(settings, rows=ROWS)


def test_a_plain_run_is_covered_whole() -> None:
    assert not_covered(run()) == []
    assert not_covered(run(vision_cache=True, vision_tower_lr=1e-4)) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bf16": True}, "the rounding of bfloat16"),
        ({"fp16": True}, "the rounding of float16"),
        ({"tf32": True}, "the rounding of TF32"),
        ({"dropout": 0.1}, "dropout of the adapters (language)"),
        ({"vision_cache": True}, "data.vision_cache"),
        ({"activation_checkpointing": True}, "train.activation_checkpointing"),
        ({"torch_compile": True}, "train.torch_compile"),
        ({"fsdp": "full_shard"}, "train.engine: fsdp2"),
    ],
)
def test_what_is_left_out_is_named(settings: dict[str, Any], words: str) -> None:
    lines = not_covered(run(**settings))
    assert len(lines) == 1
    assert lines[0].startswith(words)


def test_weights_that_are_held_in_bfloat16_are_computed_with_in_bfloat16() -> None:
    settings = {
        "model": {"path": "a/b", "dtype": "bfloat16"},
        "data": {"vision_cache": False},
        "train": {"output_dir": "out", "use_cpu": True},
    }
    (line,) = not_covered(api.load_config(settings, rows=ROWS))
    assert line.startswith("the rounding of bfloat16")


def test_the_kernels_of_a_gpu_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert any("kernels of the GPU" in line for line in not_covered(run(use_cpu=False)))
    assert not_covered(run()) == []
