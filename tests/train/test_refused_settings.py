"""A run with settings of transformers that cannot work ends before a row is measured."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from smolvlm.config.load import load_run_config
from smolvlm.errors import ConfigError
from smolvlm.train.train import train


@pytest.fixture
def refused(
    write_run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[dict[str, Any]], str]:
    """Returns what a run is told that is refused; measuring a row would be another error."""

    def measure(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("rows are measured")

    monkeypatch.setattr("smolvlm.datasets.packing.length_cache.Meter.sizes", measure)

    def told(changes: dict[str, Any]) -> str:
        with pytest.raises(ConfigError) as caught:
            train(load_run_config(write_run(tmp_path, changes)), say=lambda _: None)
        assert "Traceback" not in str(caught.value)
        return str(caught.value)

    return told


SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"num_train_epochs": 0}, "train.num_train_epochs"),
    ({"num_train_epochs": -1}, "train.num_train_epochs"),
    ({"max_steps": 0}, "train.max_steps"),
    ({"max_steps": -5}, "train.max_steps"),
    ({"seed": -1}, "train.seed"),
    ({"seed": 2**40}, "train.seed"),
    ({"weight_decay": -0.1}, "train.weight_decay"),
    ({"max_grad_norm": -1}, "train.max_grad_norm"),
    ({"warmup_steps": -1}, "train.warmup_steps"),
    ({"adam_beta1": 1.5}, "train.adam_beta1"),
    ({"adam_beta2": -0.1}, "train.adam_beta2"),
    ({"adam_epsilon": -1e-8}, "train.adam_epsilon"),
    ({"logging_steps": -1}, "train.logging_steps"),
    ({"save_strategy": "steps", "save_steps": 0}, "train.save_steps"),
    ({"dataloader_num_workers": -1}, "train.dataloader_num_workers"),
    ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type"),
    ({"lr_scheduler_kwargs": {"num_cycle": 2}, "lr_scheduler_type": "cosine"}, "lr_scheduler"),
    ({"lr_scheduler_type": "cosine_with_min_lr"}, "train.lr_scheduler_kwargs"),
    ({"optim": "adamw_trch"}, "optim"),
    ({"optim_args": "betas=what", "optim": "adamw_torch"}, "train.optim_args"),
    ({"report_to": "nothing_like_it"}, "report_to"),
    ({"push_to_hub": True}, "train.push_to_hub"),
    ({"fsdp": "full_shard"}, "train.engine"),
    ({"fp16": True}, "train.fp16"),
    ({"use_liger_kernel": True}, "train.use_liger_kernel"),
    ({"liger_kernel_config": {"rope": True}}, "train.liger_kernel_config"),
    ({"metric_for_best_model": "exact_mach"}, "train.metric_for_best_model"),
]


@pytest.mark.parametrize(
    ("changes", "key"), SETTINGS, ids=[str(changes) for changes, _ in SETTINGS]
)
def test_it_is_refused_by_its_name(
    changes: dict[str, Any],
    key: str,
    refused: Callable[[dict[str, Any]], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    message = refused({f"train.{name}": value for name, value in changes.items()})
    assert key in message
    assert "fix" in message or "must be" in message or ";" in message


MISSING = {
    "wandb": {"report_to": "wandb"},
    "comet_ml": {"report_to": "comet_ml"},
    "bitsandbytes": {"optim": "adamw_8bit"},
    "schedulefree": {"optim": "schedule_free_adamw"},
    "galore_torch": {"optim": "galore_adamw", "optim_target_modules": ["q_proj"]},
    "lomo_optim": {"optim": "lomo"},
    "grokadamw": {"optim": "grokadamw"},
    "apollo_torch": {"optim": "apollo_adamw", "optim_target_modules": ["q_proj"]},
    "deepspeed": {"deepspeed": {"zero_optimization": {"stage": 2}}},
}


@pytest.mark.parametrize("package", MISSING)
def test_what_is_not_installed_is_said_before_rows_are_measured(
    package: str, refused: Callable[[dict[str, Any]], str]
) -> None:
    if find_spec(package) is not None:
        pytest.skip(f"{package} is installed here")
    message = refused({f"train.{name}": value for name, value in MISSING[package].items()})
    assert "train." in message
    assert "fix" in message or "choose another" in message


def test_an_output_folder_that_is_a_file_or_within_one_is_refused(
    refused: Callable[[dict[str, Any]], str], tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("")
    for folder in (tmp_path / "taken", tmp_path / "taken/deeper"):
        assert "is a file, not a folder" in refused({"train.output_dir": str(folder)})
