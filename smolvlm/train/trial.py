"""transformers' settings, tried out before a row is measured or a weight is read.

In: the `train` section. Out: nothing, or a `ConfigError` that names the setting. transformers reads
most of its settings late: a tracker that is not installed, a keyword that a schedule does not know,
or an optimizer that refuses its betas raise once the model is loaded, each with a traceback of its
own. Here they are built as the run will build them, over one number.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from transformers import Trainer, TrainingArguments, get_scheduler
from transformers.integrations import integration_utils
from transformers.training_args import OptimizerNames

from smolvlm.config.adapters import PARTS
from smolvlm.config.schema import RunConfig, TrainConfig
from smolvlm.errors import ConfigError, SmolVLMError
from smolvlm.model.attention.varlen import check_varlen
from smolvlm.model.fused_layers import liger_kernels
from smolvlm.train.arguments import training_arguments
from smolvlm.train.optim import build_optimizer
from smolvlm.train.schedule import schedule_by_group

_STEPS = 100
"""Of the schedule that is tried where `max_steps` names no number."""


def try_settings(config: RunConfig) -> None:
    """Build what transformers makes of the settings: arguments, trackers, optimizer, schedule.

    Raises:
        ConfigError: one of them cannot be built, or cannot take effect here.
    """
    train = config.train
    _check_hub(train)
    steps = max(int(train.arguments.get("max_steps", -1)), 0) or _STEPS
    arguments = training_arguments(train, num_steps=steps)
    if train.engine == "fsdp2" and arguments.world_size == 1:
        raise ConfigError(
            "one process has nothing to shard over",
            where="train.engine=fsdp2",
            fix="start several: torchrun --nproc-per-node N --no-python smolvlm train ...; or take "
            "the setting out",
        )
    if train.master_weights and not arguments.bf16:
        raise ConfigError(
            "they are float32 copies of weights that compute in bfloat16, and this run's do not",
            where="train.master_weights=true",
            fix="set train.bf16: true, or take it out",
        )
    with refusals_named("log_level", train):
        arguments.get_process_log_level()
    if arguments.torch_compile:
        with refusals_named("torch_compile_mode", train):
            torch.compile(
                nn.Identity(),
                mode=arguments.torch_compile_mode,
                backend=arguments.torch_compile_backend or "inductor",
            )
    check_device(train, arguments.device)
    if config.model.attention == "varlen":
        is_half = arguments.bf16 or arguments.fp16 or config.model.dtype == "bfloat16"
        check_varlen(arguments.device.type, is_half=is_half)
    _try_trackers(train, arguments)
    if not train.arguments.get("deepspeed"):
        optimizer = _try_optimizer(config, arguments)
        _try_schedule(train, arguments, optimizer, steps=steps)


@contextmanager
def refusals_named(setting: str, train: TrainConfig) -> Iterator[None]:
    """Turn whatever another library raises in the block into a ConfigError of a setting.

    Args:
        setting: that the block tries, where the error names no other.
        train: whose values are shown.
    """
    try:
        yield
    except SmolVLMError:
        raise
    except Exception as error:  # of any library that a setting can name, and of any kind
        value = train.arguments.get(setting)
        shown = f"={value}" if value is not None else ""
        reason = str(error).strip() or type(error).__name__
        what = " ".join(reason.split())
        is_missing = isinstance(error, ImportError) or "install" in reason
        fix = (
            "install what it names, or choose another" if is_missing else "mend it, or take it out"
        )
        raise ConfigError(what, where=f"train.{setting}{shown}", fix=fix) from error


def check_device(train: TrainConfig, device: torch.device) -> None:
    """Refuse ways of computing that a device does not have, or that only cost time on it.

    Args:
        train: the settings.
        device: that the run trains on.

    Raises:
        ConfigError: `fp16` without CUDA, Liger's kernels without it or their package, or anything
            compiled on a CPU.
    """
    settings = train.arguments
    if settings.get("fp16") and device.type != "cuda":
        raise ConfigError(
            f"float16 needs a CUDA device, and the run trains on {device.type}",
            where="train.fp16=True",
            fix="take it out for float32, or set train.bf16: true",
        )
    if settings.get("use_liger_kernel"):
        liger_kernels(device.type)
    names = ("torch_compile", "torch_compile_mode", "torch_compile_backend")
    for name in names if device.type == "cpu" else ():
        if settings.get(name):
            raise ConfigError(
                "on a CPU the model would be compiled anew for packs with another number of "
                "conversations, minutes each, until torch gives up after 8 of them",
                where=f"train.{name}={settings[name]}",
                fix="take it out, or train on a GPU",
            )


def _check_hub(train: TrainConfig) -> None:
    """Refuse to push where nothing can be pushed; the hub itself is not asked."""
    if not train.arguments.get("push_to_hub"):
        return
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        what, fix = "HF_HUB_OFFLINE is set", "unset it, or take the setting out"
    elif not get_token():
        what = "there is no token to push with"
        fix = "log in with `hf auth login`, or set the environment variable HF_TOKEN"
    else:
        return
    raise ConfigError(what, where="train.push_to_hub", fix=fix)


def _try_trackers(train: TrainConfig, arguments: TrainingArguments) -> None:
    names = arguments.report_to or []
    for name in [names] if isinstance(names, str) else names:
        is_available = getattr(integration_utils, f"is_{name}_available", None)
        if is_available is not None and not is_available():
            what = "the package of this tracker is not installed"
            fix = "install it, or set train.report_to: none"
            raise ConfigError(what, where=f"train.report_to={name}", fix=fix)
    with refusals_named("report_to", train):
        for callback in integration_utils.get_reporting_integration_callbacks(names):
            callback()


def _try_optimizer(config: RunConfig, arguments: TrainingArguments) -> Optimizer:
    """Build the optimizer over one number at each rate of the run."""
    rates = {config.rate_of(part): part for part in PARTS}
    rates.setdefault(config.token_rows_lr, "new tokens")
    groups = [
        {"params": [nn.Parameter(torch.zeros(1))], "lr": rate, "weight_decay": 0.0, "name": name}
        for rate, name in sorted(rates.items())
        if rate > 0
    ]
    with refusals_named("optim", config.train):
        optimizer = build_optimizer(arguments, nn.Module(), groups)
        without = copy(arguments)
        without.optim_args = None
        if arguments.optim_args and _settings_of(arguments) == _settings_of(without):
            name = OptimizerNames(arguments.optim).value
            raise ConfigError(
                f"has no effect with train.optim={name}, which reads none of them",
                where=f"train.optim_args={arguments.optim_args}",
                fix="set adam_beta1, adam_beta2 and adam_epsilon, or take it out",
            )
    return optimizer


def _settings_of(arguments: TrainingArguments) -> object:
    return Trainer.get_optimizer_cls_and_kwargs(arguments, cast(Any, nn.Module()))


def _try_schedule(
    train: TrainConfig, arguments: TrainingArguments, optimizer: Optimizer, *, steps: int
) -> None:
    keywords: Any = arguments.lr_scheduler_kwargs

    def build() -> LRScheduler:
        return get_scheduler(
            arguments.lr_scheduler_type,
            optimizer=optimizer,
            num_warmup_steps=arguments.get_warmup_steps(steps),
            num_training_steps=steps,
            scheduler_specific_kwargs=keywords,
        )

    setting = "lr_scheduler_kwargs" if arguments.lr_scheduler_kwargs else "lr_scheduler_type"
    with refusals_named(setting, train):
        schedule_by_group(optimizer, build)
