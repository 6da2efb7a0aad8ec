"""Combinations of settings that cannot work, or in which one of them cannot take effect; checked
once, at start.

What a section cannot stand beside is said by the section (`Section.problems`); here are the
combinations that belong to none of them.
"""

from collections.abc import Iterator
from typing import Any

from smolvlm.config.adapters import PARTS
from smolvlm.config.argument_source import argument_fields
from smolvlm.config.deepspeed_file import deepspeed_problems
from smolvlm.config.eval_metrics import metric_problem
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.schema import SECTIONS, RunConfig
from smolvlm.config.yaml_text import Settings

_WORKER_SETTINGS = (
    "dataloader_prefetch_factor",
    "dataloader_persistent_workers",
    "dataloader_multiprocessing_context",
)
_HUB_SETTINGS = (
    "hub_model_id",
    "hub_private_repo",
    "hub_always_push",
    "hub_revision",
    "hub_strategy",
)
_SWITCHES = (
    ("dataloader_num_workers", _WORKER_SETTINGS, "train.dataloader_num_workers above 0"),
    ("push_to_hub", _HUB_SETTINGS, "train.push_to_hub: true"),
)
"""(setting, others that have no effect without it, what to set)."""


def combination_problems(config: RunConfig) -> list[Problem]:
    """Return every impossible combination in a config whose single settings are legal."""
    sections = [getattr(config, name) for name in SECTIONS]
    return [
        *_tower_problems(config),
        *(problem for section in sections for problem in section.problems(config)),
        *_eval_problems(config),
        *_argument_problems(config),
    ]


def _tower_problems(config: RunConfig) -> Iterator[Problem]:
    if not any(config.rate_of(part) for part in PARTS) and not config.token_rows_lr:
        what = "all three learning rates are 0, so nothing is trained"
        yield Problem(
            key="train.language_model_lr",
            value="0",
            what=what,
            fix="give at least one part a rate above 0",
        )


def _eval_problems(config: RunConfig) -> Iterator[Problem]:
    arguments = config.train.arguments
    strategy, save_strategy = (
        _value_of(name, arguments) for name in ("eval_strategy", "save_strategy")
    )
    if config.data.eval_mixture is None and strategy != "no":
        yield Problem(
            key="train.eval_strategy",
            value=shown_value(strategy),
            what="there is no data.eval_mixture to evaluate on",
            fix="name one, or take this out",
        )
    metric = arguments.get("metric_for_best_model")
    if isinstance(metric, str) and (unknown := metric_problem(metric)) is not None:
        key = "train.metric_for_best_model"
        yield Problem(key=key, value=shown_value(metric), what=unknown)
    if strategy == "no":
        yield from _needing_evaluation(arguments, save_strategy)
    elif save_strategy == "best" and not arguments.get("metric_for_best_model"):
        yield _needs("save_strategy", arguments, "train.metric_for_best_model")
    elif arguments.get("load_best_model_at_end") and save_strategy not in (strategy, "best"):
        yield _needs("load_best_model_at_end", arguments, f"train.save_strategy: {strategy}")


def _needing_evaluation(arguments: Settings, save_strategy: object) -> Iterator[Problem]:
    """Yield what cannot take effect in a run that never evaluates."""
    names = [
        name
        for name in ("load_best_model_at_end", "eval_steps", "eval_delay")
        if arguments.get(name)
    ]
    if arguments.get("lr_scheduler_type") in ("reduce_lr_on_plateau", "greedy"):
        names.append("lr_scheduler_type")
    if save_strategy == "best":
        names.append("save_strategy")
    for name in names:
        yield _needs(name, arguments, "train.eval_strategy: steps or epoch")


def _argument_problems(config: RunConfig) -> Iterator[Problem]:
    arguments = config.train.arguments
    if arguments.get("bf16") and arguments.get("fp16"):
        yield Problem(
            key="train.fp16",
            value="true",
            what="train.bf16 is true as well",
            fix="choose one of the two",
        )
    if arguments.get("fp16") and config.model.dtype == "bfloat16":
        fix = "set train.bf16: true instead, or model.dtype: float32"
        yield Problem(
            key="train.fp16", value="true", what="the weights are held in bfloat16", fix=fix
        )
    if _value_of("max_steps", arguments) > 0 and "num_train_epochs" in arguments:
        value = shown_value(arguments["num_train_epochs"])
        what = "has no effect with train.max_steps"
        yield Problem(
            key="train.num_train_epochs", value=value, what=what, fix="take one of the two out"
        )
    for switch, names, needed in _SWITCHES:
        if not arguments.get(switch):
            for name in filter(arguments.get, names):
                yield _needs(name, arguments, needed)
    yield from deepspeed_problems(config)
    if arguments.get("enable_jit_checkpoint") and arguments.get("save_only_model"):
        what = "train.save_only_model is true as well, and nothing resumes from such a checkpoint"
        fix = "choose one of the two"
        yield Problem(key="train.enable_jit_checkpoint", value="true", what=what, fix=fix)


def _value_of(name: str, arguments: Settings) -> Any:
    """Return a setting of `TrainingArguments`: the written one, or the installed default."""
    return arguments[name] if name in arguments else argument_fields()[name].default


def _needs(name: str, arguments: Settings, needed: str) -> Problem:
    what = "cannot take effect as the other settings stand"
    return Problem(
        key=f"train.{name}", value=shown_value(arguments[name]), what=what, fix=f"set {needed}"
    )
