"""From the run file to transformers' arguments: the plan fixes the length, the rest stands as it is
given."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from smolvlm.config.load import load_run_config
from smolvlm.config.schema import TrainConfig
from smolvlm.errors import ConfigError
from smolvlm.train import arguments
from smolvlm.train.arguments import (
    is_bf16_default,
    planned_length,
    seed_of,
    training_arguments,
    trains_in_bf16,
)
from smolvlm.train.optim import build_optimizer

STEPS = 3

Section = Callable[..., TrainConfig]


@pytest.fixture
def section(tmp_path: Path) -> Section:
    """Makes a `train` section; transformers' settings stand beside ours, as in a run file."""

    def make(**values: Any) -> TrainConfig:
        lines = "".join(
            f"  {name}: {value}\n" for name, value in {"use_cpu": "true", **values}.items()
        )
        path = tmp_path / "run.yaml"
        path.write_text(
            f"model: {{path: o/m}}\ndata: {{mixture: [], eval_mixture: []}}\ntrain:\n  output_dir: "
            f"out\n{lines}"
        )
        return load_run_config(path).train

    return make


def test_the_plan_fixes_length_batch_and_accumulation(section: Section) -> None:
    arguments = training_arguments(section(packs_per_step=4, num_train_epochs=7.5), num_steps=STEPS)
    assert arguments.max_steps == 3
    assert arguments.per_device_train_batch_size == 1
    assert arguments.gradient_accumulation_steps == 4
    assert not arguments.remove_unused_columns


def test_our_defaults_give_way_to_the_run_file(section: Section) -> None:
    assert training_arguments(section(), num_steps=STEPS).logging_steps == 10
    assert training_arguments(section(), num_steps=STEPS).report_to == []
    assert training_arguments(section(logging_steps=3), num_steps=STEPS).logging_steps == 3
    assert (
        training_arguments(section(weight_decay=0.1, seed=5), num_steps=STEPS).weight_decay == 0.1
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("{preserve_rng_state: false}", {"use_reentrant": False, "preserve_rng_state": False}),
        ("{use_reentrant: true}", {"use_reentrant": True}),
    ],
)
def test_checkpointing_is_reentrant_only_where_that_is_said(
    section: Section, given: str, expected: dict[str, bool]
) -> None:
    """torch would take the reentrant kind where other settings alone are given."""
    made = training_arguments(
        section(activation_checkpointing="true", activation_checkpointing_kwargs=given),
        num_steps=STEPS,
    )
    assert made.activation_checkpointing_kwargs == expected


@pytest.mark.parametrize(
    ("choice", "is_on"), [("false", False), ("true", True), ("language_model", True)]
)
def test_transformers_is_told_whether_any_tower_is_checkpointed(
    section: Section, choice: str, is_on: bool
) -> None:
    made = training_arguments(section(activation_checkpointing=choice), num_steps=STEPS)
    assert made.activation_checkpointing is is_on


@pytest.mark.parametrize("has_gpu", [False, True])
def test_packs_are_pinned_where_there_is_a_gpu_and_then_copied_while_it_computes(
    section: Section, monkeypatch: pytest.MonkeyPatch, has_gpu: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_gpu)
    made: dict[str, Any] = {}
    usual = TrainingArguments(use_cpu=True)
    monkeypatch.setattr(
        arguments, "RunArguments", lambda **settings: made.update(settings) or usual
    )
    training_arguments(section(use_cpu="false"), num_steps=STEPS)
    assert made["dataloader_pin_memory"] == has_gpu
    assert made.get("accelerator_config") == ({"non_blocking": True} if has_gpu else None)


def supports_bf16(including_emulation: bool = True) -> bool:
    return True


def emulates_bf16(including_emulation: bool = True) -> bool:
    return including_emulation


def test_adamw_is_fused_on_every_device_unless_the_run_file_says_otherwise(
    section: Section,
) -> None:
    by_default = training_arguments(section(), num_steps=STEPS)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}]
    optimizer = build_optimizer(by_default, torch.nn.Module(), groups)
    assert type(optimizer) is torch.optim.AdamW
    assert optimizer.defaults["fused"] is True
    # Not chosen by looking at the device: the arguments of a run on CUDA name the same one.
    assert "optim" not in arguments.DEFAULTS
    default = TrainingArguments.__dataclass_fields__["optim"].default
    assert default == by_default.optim == "adamw_torch_fused"
    written = training_arguments(section(optim="adamw_torch"), num_steps=STEPS)
    assert build_optimizer(written, torch.nn.Module(), groups).defaults["fused"] is not True


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes torch see a GPU, with or without units for bfloat16."""

    def see(*, has_bf16: bool) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", supports_bf16 if has_bf16 else emulates_bf16
        )

    return see


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, True),
        ({"use_cpu": "false"}, True),
        ({"use_cpu": "true"}, None),
        ({"bf16": "false"}, False),
        ({"bf16": "true"}, True),
        ({"fp16": "true"}, None),
        ({"fp16": "false"}, True),
        ({"deepspeed": "{bf16: {enabled: false}}"}, None),
    ],
)
def test_bf16_is_the_default_on_a_gpu_that_has_it_and_the_run_file_decides(
    section: Section,
    monkeypatch: pytest.MonkeyPatch,
    gpu: Any,
    given: dict[str, Any],
    expected: bool | None,
) -> None:
    made: dict[str, Any] = {}
    usual = TrainingArguments(use_cpu=True)
    monkeypatch.setattr(
        arguments, "RunArguments", lambda **settings: made.update(settings) or usual
    )
    monkeypatch.setattr(arguments, "find_spec", lambda _: "installed")
    gpu(has_bf16=True)
    train = section(**{"use_cpu": "false", **given})
    training_arguments(train, num_steps=STEPS)
    assert made.get("bf16") == expected
    assert trains_in_bf16(train) == bool(expected)
    assert is_bf16_default(train) == (expected is True and "bf16" not in given)


def test_bf16_is_no_default_where_it_would_be_emulated_and_none_on_a_cpu(
    section: Section, gpu: Any
) -> None:
    assert not trains_in_bf16(section(use_cpu="false"))
    assert not training_arguments(section(), num_steps=STEPS).bf16
    assert training_arguments(section(bf16="true"), num_steps=STEPS).bf16
    gpu(has_bf16=False)
    assert not trains_in_bf16(section(use_cpu="false"))
    assert trains_in_bf16(section(use_cpu="false", bf16="true"))


def test_packs_must_be_dealt_evenly(section: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda _: 4))
    assert (
        training_arguments(section(packs_per_step=8), num_steps=STEPS).gradient_accumulation_steps
        == 2
    )
    with pytest.raises(ConfigError, match=r"packs_per_step=6 cannot be dealt to 4 ranks") as caught:
        training_arguments(section(packs_per_step=6), num_steps=STEPS)
    assert caught.value.fix == "set it to a multiple of 4"


def test_several_gpus_in_one_process_are_refused(
    section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda _: 2))
    with pytest.raises(ConfigError, match="2 GPUs and one process") as caught:
        training_arguments(section(), num_steps=STEPS)
    assert caught.value.fix is not None
    assert "torchrun --nproc-per-node 2" in caught.value.fix


def test_what_transformers_refuses_is_said_in_our_words(section: Section) -> None:
    unmatched = {
        "load_best_model_at_end": "true",
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_steps": 3,
    }
    with pytest.raises(ConfigError, match="transformers refuses the settings: ") as caught:
        training_arguments(section(**unmatched), num_steps=STEPS)
    assert caught.value.where == "train.load_best_model_at_end=True"


def test_length_and_seed_as_asked(section: Section) -> None:
    assert planned_length(section()) == (1.0, None)
    assert planned_length(section(num_train_epochs=2.5)) == (2.5, None)
    assert planned_length(section(max_steps=7)) == (1.0, 7)
    assert seed_of(section()) == TrainingArguments.seed == 42
    assert seed_of(section(seed=7)) == 7


def test_a_process_that_knows_of_no_other_is_refused_where_there_should_be_several(
    section: Section, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would train the whole run: torchrun on a machine without a GPU, without `use_cpu`."""
    monkeypatch.setenv("SMOLVLM_RANKS", "2")
    with pytest.raises(ConfigError, match="SMOLVLM_RANKS is 2"):
        training_arguments(section(), num_steps=STEPS)
