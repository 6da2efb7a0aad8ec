"""Settings of `TrainingArguments`: what the installed release knows, which of it is refused, and
the types."""

import json
import types
import typing
from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.schema import own_names
from smolvlm.config.training_arguments import (
    FORMER,
    REFUSED,
    argument_problem,
    argument_types,
    is_of_type,
    type_in_words,
)


def problem(name: str, value: Any, folder: Path = Path()) -> str | None:
    found = argument_problem(name, value, base_dir=folder)
    return None if found is None else f"{found.key} = {found.value}: {found.what}; {found.fix}"


def test_every_refused_name_exists_and_every_former_one_is_gone() -> None:
    assert set(argument_types()) >= set(REFUSED)
    assert not set(FORMER) & set(argument_types())


def test_what_the_run_file_calls_its_own_shadows_only_names_of_the_same_meaning() -> None:
    assert set(own_names("train")) & set(argument_types()) == {
        "activation_checkpointing",
        "output_dir",
        "resume_from_checkpoint",
    }


def test_every_name_of_the_release_has_been_decided() -> None:
    """A new release's new names land here: decide whether each can take effect with planned packs,
    then list it."""
    prefixes = (
        "adam_",
        "activation_",
        "ddp_",
        "fsdp",
        "hub_",
        "log_",
        "logging_",
        "save_",
        "torch_",
        "trackio_",
        "warmup_",
    )
    allowed = {
        *(
            "bf16",
            "fp16",
            "tf32",
            "use_cpu",
            "seed",
            "full_determinism",
            "debug",
            "deepspeed",
            "disable_tqdm",
            "use_liger_kernel",
        ),
        *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
        *("dataloader_prefetch_factor", "dataloader_multiprocessing_context"),
        *(
            "num_train_epochs",
            "max_steps",
            "lr_scheduler_type",
            "lr_scheduler_kwargs",
            "optim",
            "optim_args",
        ),
        *(
            "weight_decay",
            "max_grad_norm",
            "report_to",
            "run_name",
            "project",
            "push_to_hub",
            "enable_jit_checkpoint",
        ),
        *(
            "eval_strategy",
            "eval_steps",
            "eval_delay",
            "skip_memory_metrics",
            "restore_callback_states_from_checkpoint",
        ),
        *("load_best_model_at_end", "metric_for_best_model", "greater_is_better"),
    }
    decided = (
        {name for name in argument_types() if name.startswith(prefixes)} | allowed | set(REFUSED)
    )
    assert set(argument_types()) - decided == {"output_dir", "resume_from_checkpoint"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("warmup_steps", 0.03),
        ("warmup_steps", 100),
        ("num_train_epochs", 1),
        ("bf16", True),
        ("lr_scheduler_type", "cosine"),
        ("lr_scheduler_kwargs", {"num_cycles": 2}),
        ("optim", "adamw_torch"),
        ("eval_strategy", "no"),
        ("save_strategy", "best"),
        ("report_to", ["tensorboard"]),
        ("report_to", "none"),
        ("report_to", None),
        ("activation_checkpointing_kwargs", {"use_reentrant": False}),
        ("trackio_static_space_id", False),
        ("max_steps", 10),
    ],
)
def test_values_of_the_right_type_pass(name: str, value: Any) -> None:
    assert problem(name, value) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("bf16", 1, "train.bf16 = 1: must be true or false; None"),
        ("bf16", "yes", "train.bf16 = 'yes': must be true or false; None"),
        ("weight_decay", "0.1", "train.weight_decay = '0.1': must be a number; None"),
        ("weight_decay", True, "train.weight_decay = true: must be a number; None"),
        ("weight_decay", float("nan"), "train.weight_decay = nan: must be a number; None"),
        ("seed", 1.5, "train.seed = 1.5: must be a whole number; None"),
        ("seed", None, "train.seed = null: must be a whole number; None"),
        (
            "eval_strategy",
            "step",
            "train.eval_strategy = 'step': must be one of no, steps, epoch; did you mean `steps`?",
        ),
        ("report_to", [1], "train.report_to = [1]: must be null or text or a list; None"),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: Any, message: str) -> None:
    assert problem(name, value) == message


def test_a_long_list_of_choices_is_cut_and_the_nearest_named() -> None:
    message = problem("optim", "adamw_trch")
    assert message is not None
    assert message.startswith(
        "train.optim = 'adamw_trch': must be one of adamw_torch, adamw_torch_fused, "
    )
    assert message.endswith(", ...; did you mean `adamw_torch`?")


@pytest.mark.parametrize("optimizer", ["galore_adamw", "lomo", "adalomo", "apollo_adamw_layerwise"])
def test_optimizers_that_drop_the_parts_rates_are_refused(optimizer: str) -> None:
    assert "regroups the parameters and drops the parts' own rates" in (
        problem("optim", optimizer) or ""
    )


@pytest.mark.parametrize("block", ["optimizer", "scheduler"])
def test_a_deepspeed_file_with_its_own_optimizer_or_schedule_is_refused(
    tmp_path: Path, block: str
) -> None:
    content = {"zero_optimization": {"stage": 2}, block: {"type": "x"}}
    (tmp_path / "zero2.json").write_text(json.dumps(content))
    for value in ("zero2.json", content):
        assert f"has its own `{block}` block" in (problem("deepspeed", value, tmp_path) or "")


def test_a_deepspeed_file_without_one_passes(tmp_path: Path) -> None:
    (tmp_path / "zero2.json").write_text('{"zero_optimization": {"stage": 2}}')
    assert problem("deepspeed", "zero2.json", tmp_path) is None
    assert problem("deepspeed", None, tmp_path) is None


def test_a_deepspeed_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "list.json").write_text("[]")
    assert "gone.json: no such file" in (problem("deepspeed", "gone.json", tmp_path) or "")
    assert "broken.json is not JSON: " in (problem("deepspeed", "broken.json", tmp_path) or "")
    assert "must hold a mapping" in (problem("deepspeed", "list.json", tmp_path) or "")


def test_types_of_other_shapes() -> None:
    assert is_of_type("x", Any)
    assert is_of_type(None, types.NoneType)
    assert is_of_type({"a": 1}, dict[str, int])
    assert not is_of_type([1], list[str])
    assert is_of_type(10**300, float)
    assert not any(
        is_of_type(own, float) for own in (10**400, -(10**400), float("nan"), float("inf"))
    )
    assert is_of_type("a", typing.Literal["a", "b"])
    assert type_in_words(str | None) == "text or null"
    assert type_in_words(typing.Literal["a", "b"]) == "'a' or 'b'"
