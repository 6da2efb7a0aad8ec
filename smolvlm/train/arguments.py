"""The run file's `train` section as `transformers.TrainingArguments`, plus what a planned run
fixes."""

import os
import re
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import torch
from transformers import TrainingArguments

from smolvlm.config.context_ranks import data_ranks
from smolvlm.config.eval_metrics import is_greater_better
from smolvlm.config.schema import TrainConfig
from smolvlm.errors import ConfigError
from smolvlm.train.stop_signal import check_stop_signal
from smolvlm.train.trackers import PROJECT, RunArguments, name_project

DEFAULTS: dict[str, Any] = {
    "report_to": "none",
    "project": PROJECT,
    "logging_steps": 10,
    "logging_nan_inf_filter": False,
    "ddp_find_unused_parameters": False,
}
"""Ours where they differ from transformers'; the run file may set any of them. What follows from
the device is in `training_arguments`."""


def seed_of(train: TrainConfig) -> int:
    """Return the seed of the plan: `train.seed`, else transformers' default."""
    return int(train.arguments.get("seed", TrainingArguments.seed))


def planned_length(train: TrainConfig) -> tuple[float, int | None]:
    """Return (num_epochs, max_steps or None) as the run file asks; one epoch where it does not."""
    max_steps = int(train.arguments.get("max_steps", -1))
    return float(train.arguments.get("num_train_epochs", 1.0)), max_steps if max_steps > 0 else None


def trains_in_bf16(train: TrainConfig) -> bool:
    """Return whether training runs under bfloat16 autocast: as written, else as the GPU allows."""
    return bool(train.arguments.get("bf16")) or is_bf16_default(train)


def is_bf16_default(train: TrainConfig) -> bool:
    """Return whether training runs under bfloat16 autocast without the run file saying so.

    On a CUDA device with units for it, where none of `bf16`, `fp16` and `use_cpu` is set. Emulated
    bfloat16 (before Ampere) does not count: it is slower than float32. A DeepSpeed file says the
    precision itself.
    """
    arguments = train.arguments
    if "bf16" in arguments or any(arguments.get(name) for name in ("fp16", "use_cpu", "deepspeed")):
        return False
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def training_arguments(train: TrainConfig, *, num_steps: int) -> TrainingArguments:
    """Build the trainer's arguments; length, batch and accumulation are the plan's.

    Args:
        train: the settings.
        num_steps: of the plan.

    Raises:
        ConfigError: transformers refuses a setting, the packs of a step cannot be dealt evenly to
            the ranks, one process sees several GPUs, or a signal could not be kept to.
    """
    run_settings = {
        name: value
        for name, value in train.arguments.items()
        # Liger's kernels are put into the model where it is loaded: transformers would take its
        # loss as well.
        if name not in ("num_train_epochs", "max_steps", "use_liger_kernel")
    }
    fixed = {
        "output_dir": str(train.output_dir),
        "max_steps": num_steps,
        "per_device_train_batch_size": 1,
        "remove_unused_columns": False,
        "activation_checkpointing": bool(train.activation_checkpointing),
        # DeepSpeed reads it where the arguments are made, when only the launcher's variable knows
        # the ranks.
        "gradient_accumulation_steps": max(
            1, train.packs_per_step * train.context_ranks // _processes_started()
        ),
    }
    if checkpointing := run_settings.get("activation_checkpointing_kwargs"):
        # With other keys alone torch would take the reentrant kind.
        run_settings["activation_checkpointing_kwargs"] = {"use_reentrant": False} | checkpointing
    by_device = {"dataloader_pin_memory": torch.cuda.is_available()}
    if is_bf16_default(train):
        by_device["bf16"] = True
    best = run_settings.get("metric_for_best_model")
    if best is not None and run_settings.get("greater_is_better") is None:
        # transformers takes more of `loss_SOURCE` for better.
        run_settings["greater_is_better"] = is_greater_better(best)
    settings: dict[str, Any] = DEFAULTS | by_device | run_settings | fixed
    if settings.get("deepspeed") and find_spec("deepspeed") is None:
        # transformers would find out half way, and leave a half-made engine behind for the process.
        raise ConfigError(
            "the package deepspeed is not installed",
            where=f"train.deepspeed={settings['deepspeed']}",
            fix="pip install deepspeed, or take the setting out",
        )
    if settings["dataloader_pin_memory"] and not settings.get("use_cpu"):
        # From pinned memory a copy runs beside the step.
        settings["accelerator_config"] = {"non_blocking": True}
    try:
        arguments = RunArguments(**settings)
    except Exception as error:  # it asks other packages and devices, which raise what they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"transformers refuses the settings: {reason}",
            where=_blamed(reason, run_settings),
            fix="mend the setting it names, or install what it needs",
        ) from error
    if arguments.n_gpu > 1:
        raise ConfigError(
            f"{arguments.n_gpu} GPUs and one process",
            where="torchrun",
            fix=f"start one process a GPU: torchrun --nproc-per-node {arguments.n_gpu} --no-python "
            "smolvlm train ...; "
            "or show it one: CUDA_VISIBLE_DEVICES=0",
        )
    check_world(arguments.world_size)
    if settings.get("deepspeed") and arguments.world_size > 1:
        _tell_deepspeed_of_the_ranks()
    groups = data_ranks(train, num_ranks=arguments.world_size)
    check_stop_signal(arguments)
    name_project()
    arguments.hides_places = train.private
    arguments.enable_jit_checkpoint = False  # ours is in its place (`stop_signal.py`)
    arguments.gradient_accumulation_steps = train.packs_per_step // groups
    return arguments


def _blamed(reason: str, settings: Mapping[str, object]) -> str:
    """Return the setting that a refusal speaks of first, by its name or else its value; or the
    section."""
    found = {name: re.search(rf"\b{re.escape(name)}\b", reason) for name in settings}
    names = sorted((match.start(), name) for name, match in found.items() if match is not None) or [
        (0, name)
        for name, value in settings.items()
        if isinstance(value, str) and len(value) > 2 and value in reason
    ]
    if not names:
        return "train"
    name = names[0][1]
    return f"train.{name}={settings[name]}"


def _processes_started() -> int:
    """Return how many processes the launcher says that it started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def _tell_deepspeed_of_the_ranks() -> None:
    """Let DeepSpeed use the process group that exists.

    accelerate (1.15) does so on GPUs alone. On CPUs ZeRO-3, which cuts weights up while they are
    loaded, would take this process for the only one.
    """
    from deepspeed import comm  # pyright: ignore[reportMissingImports] - an extra

    if not comm.is_initialized():
        comm.init_distributed()


def check_world(num_ranks: int) -> None:
    """Raise ConfigError where the ranks that know of each other are not those that were started, or
    asked for."""
    for name, who in (("WORLD_SIZE", "torchrun"), ("SMOLVLM_RANKS", "smolvlm launch")):
        asked = int(os.environ.get(name, num_ranks))
        if asked == num_ranks:
            continue
        known = "no other" if num_ranks == 1 else f"{num_ranks} in all"
        raise ConfigError(
            f"{name} is {asked}, and this process knows of {known}: each such group would train "
            "the whole run",
            where=who,
            fix="on a machine without a GPU set train.use_cpu: true; or start as many as it says",
        )
