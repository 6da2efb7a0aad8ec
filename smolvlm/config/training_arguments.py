"""The settings of `transformers.TrainingArguments` that a run file may carry, and those it may not.

Names, types and defaults are those of the installed release, read from its source
(`argument_source.py`), so a new release's settings are known without a change here. Refused are
those that cannot take effect: batches are packs that a plan fixes beforehand, each part has its own
learning rate, the loss and the evaluation are this program's.
"""

import sys
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal

from smolvlm.config.argument_ranges import range_problem
from smolvlm.config.argument_source import argument_fields
from smolvlm.config.deepspeed_file import deepspeed_problem
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.suggestions import did_you_mean

_RATES = "set train.language_model_lr, train.connector_lr and train.vision_tower_lr"
_PACKS = "set data.max_tokens_per_pack, and train.packs_per_step for the packs of a step"
_PLANNED = "the plan fixes which packs each step sees, and in what order"
_EVALUATION = "evaluation is decided in the section `eval`"
_LOSS = "the loss is computed on the supervised tokens alone, weighted as data.loss_weighting says"

REFUSED: Mapping[str, str] = {
    "learning_rate": f"each part has its own rate; {_RATES}",
    "optim_target_modules": "it would regroup the parameters and drop the parts' own rates; "
    f"{_RATES}",
    "per_device_train_batch_size": f"one pack is one batch; {_PACKS}",
    "gradient_accumulation_steps": "it follows from the packs of a step and the ranks; set "
    "train.packs_per_step",
    "auto_find_batch_size": f"{_PLANNED}; set data.max_tokens_per_pack to what the memory holds",
    "average_tokens_across_devices": "the loss is always averaged over the step's tokens on all "
    "devices; leave it out",
    "label_smoothing_factor": f"{_LOSS}; leave it out",
    "label_names": f"{_LOSS}; leave it out",
    "neftune_noise_alpha": "its noise is scaled by the sequence, and a pack holds many "
    "conversations; leave it out",
    "liger_kernel_config": "train.use_liger_kernel takes norm, rotary positions and the gated MLP, "
    f"never the loss: {_LOSS}; leave it out",
    "use_cache": "with a cache the attention of a pack would be lost; it is always off",
    "gradient_checkpointing": "renamed; set train.activation_checkpointing",
    "gradient_checkpointing_kwargs": "renamed; set train.activation_checkpointing_kwargs",
    "include_num_input_tokens_seen": "metrics.jsonl always carries the number of tokens; leave it "
    "out",
    "remove_unused_columns": "a pack has no columns; leave it out",
    "train_sampling_strategy": f"{_PLANNED}; leave it out",
    "length_column_name": "lengths are computed, not read from a column; leave it out",
    "dataloader_drop_last": f"{_PLANNED}; leave it out",
    "dataloader_in_order": f"{_PLANNED}; leave it out",
    "ignore_data_skip": "a resumed run goes on in the plan at no cost; leave it out",
    "data_seed": "the plan is drawn from train.seed; set that",
    "accelerator_config": f"{_PLANNED}, and deals them to the ranks; leave it out",
    "parallelism_config": "only data parallelism is available in this version; leave it out",
    "per_device_eval_batch_size": f"{_EVALUATION}; set eval.batch_size",
    "eval_on_start": f"{_EVALUATION}; set eval.at_start",
    "prediction_loss_only": f"{_EVALUATION}; leave it out",
    "eval_do_concat_batches": f"{_EVALUATION}; leave it out",
    "eval_use_gather_object": f"{_EVALUATION}; leave it out",
    "eval_accumulation_steps": f"{_EVALUATION}; leave it out",
    "include_for_metrics": f"{_EVALUATION}; leave it out",
    "batch_eval_metrics": f"{_EVALUATION}; leave it out",
    "bf16_full_eval": "it has no effect during training; set model.dtype",
    "fp16_full_eval": "it has no effect during training; leave it out",
    "do_train": "the command says what is done; leave it out",
    "do_eval": "set train.eval_strategy, eval.at_start or eval.at_end",
    "do_predict": "the command says what is done; leave it out",
    "hub_token": "it would be written to run.yaml; set the environment variable HF_TOKEN",
    "local_rank": "the launcher sets it; leave it out",
}
"""Name -> why it cannot take effect, and what to set instead."""

FORMER: Mapping[str, str] = {
    "warmup_ratio": "it is gone from transformers; set train.warmup_steps below 1, a share of all "
    "steps",
    "evaluation_strategy": "renamed; set train.eval_strategy",
    "no_cuda": "renamed; set train.use_cpu",
    "group_by_length": f"{_PLANNED}; leave it out",
    "per_gpu_train_batch_size": f"one pack is one batch; {_PACKS}",
    "per_gpu_eval_batch_size": f"{_EVALUATION}; set eval.batch_size",
    "overwrite_output_dir": "set train.resume_from_checkpoint: false to start anew",
    "logging_dir": "it is gone from transformers; set the environment variable "
    "TENSORBOARD_LOGGING_DIR",
    "save_safetensors": "weights are always saved as safetensors; leave it out",
    "fp16_backend": "it is gone from transformers; set train.fp16",
    "half_precision_backend": "it is gone from transformers; set train.bf16 or train.fp16",
    "use_mps_device": "it is gone from transformers; an MPS device is used where there is one",
    "model_max_length": "set data.max_tokens_per_pack",
}
"""Names of earlier releases that run files still carry -> what to set instead."""

_MAX_CHOICES = 12
_RATE_DROPPING_OPTIMIZERS = ("galore", "apollo", "lomo", "adalomo")


@cache
def argument_types() -> Mapping[str, object]:
    """Return name -> type of every setting of the installed `TrainingArguments`."""
    return {name: field.type for name, field in argument_fields().items()}


def argument_problem(name: str, value: object, *, base_dir: Path) -> Problem | None:
    """Return what is wrong with a setting of `TrainingArguments`, or None.

    `name` is a legal name.

    Args:
        name: of `argument_types`.
        value: as the run file gives it.
        base_dir: folder that a DeepSpeed file's relative path starts from.
    """
    hint = argument_types()[name]
    key = f"train.{name}"
    if not is_of_type(value, hint):
        fix = did_you_mean(value, _choices(hint)) if isinstance(value, str) else None
        return Problem(
            key=key, value=shown_value(value), what=f"must be {type_in_words(hint)}", fix=fix
        )
    if (out_of_range := range_problem(name, value)) is not None:
        return Problem(key=key, value=shown_value(value), what=out_of_range)
    if name == "optim" and any(
        str(value).startswith(prefix) for prefix in _RATE_DROPPING_OPTIMIZERS
    ):
        what = "this optimizer regroups the parameters and drops the parts' own rates"
        return Problem(
            key=key,
            value=shown_value(value),
            what=what,
            fix="choose another, such as adamw_torch_fused",
        )
    if name == "deepspeed":
        return deepspeed_problem(value, base_dir=base_dir)
    return None


def is_of_type(value: object, hint: Any) -> bool:
    """Say whether a YAML value fits a field's type.

    `Enum | str` means a value of the enum; an int is a float too.
    """
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        members = typing.get_args(hint)
        if any(_is_enum(member) for member in members):
            members = tuple(member for member in members if member is not str)
        return any(is_of_type(value, member) for member in members)
    if origin is Literal:
        return value in typing.get_args(hint)
    if origin is list:
        return isinstance(value, list) and all(
            is_of_type(member, typing.get_args(hint)[0]) for member in value
        )
    if origin is dict:
        return isinstance(value, dict)
    if _is_enum(hint):
        return not isinstance(value, bool) and value in [member.value for member in hint]
    if hint is float:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and abs(value) <= sys.float_info.max
        )
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return hint is Any or isinstance(value, hint)


def type_in_words(hint: object) -> str:
    """Describe a field's type for an error message."""
    origin, members = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        has_enum = any(_is_enum(member) for member in members)
        return " or ".join(
            type_in_words(member) for member in members if not (has_enum and member is str)
        )
    if origin is Literal:
        return " or ".join(shown_value(member) for member in members)
    if _is_enum(hint):
        choices = _choices(hint)
        return f"one of {', '.join(choices[:_MAX_CHOICES])}" + (
            ", ..." if len(choices) > _MAX_CHOICES else ""
        )
    if origin is list:
        return "a list"
    words = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        dict: "a mapping",
    }
    return "null" if hint is types.NoneType else words.get(origin or hint, str(hint))


def _choices(hint: Any) -> list[str]:
    """Return the words a field's type allows; none where any text, or no text, is allowed."""
    if _is_enum(hint):
        return [str(member.value) for member in hint]
    return [choice for member in typing.get_args(hint) for choice in _choices(member)]


def _is_enum(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, Enum)
