"""Numbers that transformers would take and that cannot be meant."""

from pathlib import Path

import pytest

from smolvlm.config.argument_ranges import RANGES, range_problem
from smolvlm.config.argument_source import argument_fields
from smolvlm.config.training_arguments import REFUSED, argument_problem, is_of_type


def test_each_name_is_a_setting_that_takes_numbers_and_its_default_is_in_range() -> None:
    fields = argument_fields()
    assert set(RANGES) <= set(fields) - set(REFUSED)
    assert all(
        is_of_type(1, fields[name].type) or is_of_type(1.0, fields[name].type) for name in RANGES
    )
    assert [name for name in RANGES if range_problem(name, fields[name].default)] == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_train_epochs", 0),
        ("num_train_epochs", -1.0),
        ("max_steps", 0),
        ("max_steps", -5),
        ("seed", -1),
        ("seed", 2**32),
        ("weight_decay", -0.1),
        ("max_grad_norm", -1.0),
        ("adam_beta1", 1.0),
        ("adam_beta2", -0.1),
        ("adam_epsilon", 0.0),
        ("warmup_steps", -1),
        ("warmup_steps", 1.5),
        ("logging_steps", 0),
        ("logging_steps", -1),
        ("save_steps", 2.5),
        ("eval_steps", -0.5),
        ("eval_delay", -1),
        ("save_total_limit", 0),
        ("dataloader_num_workers", -1),
        ("dataloader_prefetch_factor", 0),
        ("torch_empty_cache_steps", 0),
        ("ddp_timeout", -1),
        ("ddp_bucket_cap_mb", 0),
    ],
)
def test_what_is_out_of_range_is_refused(name: str, value: float) -> None:
    problem = argument_problem(name, value, base_dir=Path())
    assert problem is not None
    assert problem.key == f"train.{name}"
    assert problem.what.startswith("must be ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_train_epochs", 0.5),
        ("max_steps", -1),
        ("seed", 2**32 - 1),
        ("weight_decay", 0),
        ("max_grad_norm", 0),
        ("warmup_steps", 0.1),
        ("warmup_steps", 100.0),
        ("logging_steps", 0.25),
        ("save_total_limit", None),
    ],
)
def test_what_is_in_range_is_taken(name: str, value: object) -> None:
    assert range_problem(name, value) is None
