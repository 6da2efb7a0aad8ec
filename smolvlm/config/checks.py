"""Combinations of settings that cannot work, or in which one of them cannot take effect; checked once, at start."""

from collections.abc import Iterator
from typing import Any

from smolvlm.config.adapters import PARTS
from smolvlm.config.argument_source import argument_fields
from smolvlm.config.freeze_checks import freeze_problems
from smolvlm.config.new_token_checks import new_token_problems
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.quantization_checks import quantization_problems
from smolvlm.config.reference_checks import reference_problems
from smolvlm.config.rope_checks import rope_problems
from smolvlm.config.schema import DataConfig, RunConfig, TrainConfig

_WORKER_SETTINGS = (
    "dataloader_prefetch_factor",
    "dataloader_persistent_workers",
    "dataloader_multiprocessing_context",
)
_HUB_SETTINGS = ("hub_model_id", "hub_private_repo", "hub_always_push", "hub_revision", "hub_strategy")


def combination_problems(config: RunConfig) -> list[Problem]:
    """Return every impossible combination in a config whose single settings are legal."""
    return [
        *_tower_problems(config),
        *_method_problems(config),
        *reference_problems(config),
        *_adapter_problems(config),
        *freeze_problems(config),
        *new_token_problems(config),
        *quantization_problems(config),
        *rope_problems(config),
        *_data_problems(config),
        *_eval_problems(config),
        *_argument_problems(config),
    ]


def _tower_problems(config: RunConfig) -> Iterator[Problem]:
    if not any(config.rate_of(part) for part in PARTS) and not config.token_rows_lr:
        what = "all three learning rates are 0, so nothing is trained"
        yield Problem(key="train.language_model_lr", value="0", what=what, fix="give at least one part a rate above 0")


def _method_problems(config: RunConfig) -> Iterator[Problem]:
    """Yield settings of preference training that the method or its loss does not read."""
    train = config.train
    readers = {
        "loss_type": train.method == "dpo",
        "beta": train.method == "dpo",
        "sft_weight": train.method == "dpo",
        "label_smoothing": train.method == "dpo" and train.loss_type in ("sigmoid", "robust"),
        "margin": train.method == "dpo" and train.loss_type == "simpo",
    }
    for name, is_read in readers.items():
        value = getattr(train, name)
        if not is_read and value != TrainConfig.model_fields[name].default:
            cause = "train.method = sft" if train.method == "sft" else f"train.loss_type = {train.loss_type}"
            yield Problem(
                key=f"train.{name}", value=shown_value(value), what=f"has no effect with {cause}", fix="take it out"
            )
    if train.method == "dpo" and config.data.loss_weighting != "token":
        what, value = "has no effect with train.method = dpo", shown_value(config.data.loss_weighting)
        yield Problem(key="data.loss_weighting", value=value, what=what, fix="take it out")


def _adapter_problems(config: RunConfig) -> Iterator[Problem]:
    for part, entry in config.adapters.entries():
        key, rate_key = f"adapters.{part}", f"train.{PARTS[part]}"
        rate = config.rate_of(part)
        if entry.type == "frozen" and rate > 0:
            fix = f"set {rate_key}: 0, or take the word out"
            yield Problem(
                key=key, value="'frozen'", what=f"the tower has a learning rate, {rate_key} = {rate:g}", fix=fix
            )
        if entry.type == "full" and rate == 0:
            fix = f"set {rate_key} above 0, or write `frozen`"
            yield Problem(key=key, value="'full'", what=f"nothing would be learned: {rate_key} is 0", fix=fix)
        if entry.is_adapter and rate == 0:
            cause = f"{key}.lr is 0" if entry.lr is not None else f"{rate_key} is 0"
            fix = f"set {key}.lr or {rate_key} above 0, or take the adapter out"
            yield Problem(key=key, value=shown_value(entry.type), what=f"it would learn nothing: {cause}", fix=fix)
    types = {entry.type: part for part, entry in config.adapters.entries() if entry.is_adapter}
    if len(types) > 1:
        given = ", ".join(f"{part}: {kind}" for kind, part in types.items())
        what = f"the towers' adapters are saved as one, which has one type, and these have several ({given})"
        yield Problem(key="adapters", what=what, fix="give all of them one type; r, alpha, dropout and lr may differ")


def _data_problems(config: RunConfig) -> Iterator[Problem]:
    data = config.data
    if data.on_bad_sample == "skip" and data.max_bad_fraction == 0:
        what = "with data.on_bad_sample = skip, not one row could be skipped"
        fix = "set data.on_bad_sample: error, or allow a share"
        yield Problem(key="data.max_bad_fraction", value="0", what=what, fix=fix)
    if not data.share_media and data.max_branches != DataConfig.model_fields["max_branches"].default:
        what = "has no effect with data.share_media = false"
        yield Problem(key="data.max_branches", value=str(data.max_branches), what=what, fix="take one of the two out")
    if data.average_frames > 1 and data.max_frames == 1:
        what = "has no effect with data.max_frames = 1: there is nothing to average"
        yield Problem(
            key="data.average_frames", value=str(data.average_frames), what=what, fix="take one of the two out"
        )
    if data.vision_cache_dir is not None and (not data.vision_cache or config.rate_of("vision") > 0):
        cause = "data.vision_cache = false" if not data.vision_cache else "a vision tower that is trained"
        what = f"has no effect with {cause}"
        yield Problem(
            key="data.vision_cache_dir", value=shown_value(str(data.vision_cache_dir)), what=what, fix="take it out"
        )
    has_workers = bool(config.train.arguments.get("dataloader_num_workers"))
    if data.prefetch_mb != DataConfig.model_fields["prefetch_mb"].default and not has_workers:
        fix = "set train.dataloader_num_workers above 0, or take it out"
        what = "has no effect without loader workers"
        yield Problem(key="data.prefetch_mb", value=str(data.prefetch_mb), what=what, fix=fix)


def _eval_problems(config: RunConfig) -> Iterator[Problem]:
    arguments = config.train.arguments
    strategy, save_strategy = (_value_of(name, arguments) for name in ("eval_strategy", "save_strategy"))
    has_mixture = config.data.eval_mixture is not None
    if not has_mixture:
        if strategy != "no":
            what = "there is no data.eval_mixture to evaluate on"
            yield Problem(
                key="train.eval_strategy", value=shown_value(strategy), what=what, fix="name one, or take this out"
            )
        if config.eval.at_start:
            what = "there is no data.eval_mixture to evaluate on"
            yield Problem(key="eval.at_start", value="true", what=what, fix="name one, or take this out")
    if strategy == "no":
        for name in ("load_best_model_at_end", "eval_steps", "eval_delay"):
            if arguments.get(name):
                yield _needs(name, arguments, "train.eval_strategy: steps or epoch")
        if arguments.get("lr_scheduler_type") in ("reduce_lr_on_plateau", "greedy"):
            yield _needs("lr_scheduler_type", arguments, "train.eval_strategy: steps or epoch")
        if save_strategy == "best":
            yield _needs("save_strategy", arguments, "train.eval_strategy: steps or epoch")
    elif save_strategy == "best" and not arguments.get("metric_for_best_model"):
        yield _needs("save_strategy", arguments, "train.metric_for_best_model")
    elif arguments.get("load_best_model_at_end") and save_strategy not in (strategy, "best"):
        yield _needs("load_best_model_at_end", arguments, f"train.save_strategy: {strategy}")


def _argument_problems(config: RunConfig) -> Iterator[Problem]:
    arguments = config.train.arguments
    if arguments.get("bf16") and arguments.get("fp16"):
        yield Problem(key="train.fp16", value="true", what="train.bf16 is true as well", fix="choose one of the two")
    if arguments.get("fp16") and config.model.dtype == "bfloat16":
        fix = "set train.bf16: true instead, or model.dtype: float32"
        yield Problem(key="train.fp16", value="true", what="the weights are held in bfloat16", fix=fix)
    if _value_of("max_steps", arguments) > 0 and "num_train_epochs" in arguments:
        value = shown_value(arguments["num_train_epochs"])
        what = "has no effect with train.max_steps"
        yield Problem(key="train.num_train_epochs", value=value, what=what, fix="take one of the two out")
    if not arguments.get("dataloader_num_workers"):
        for name in _WORKER_SETTINGS:
            if arguments.get(name):
                yield _needs(name, arguments, "train.dataloader_num_workers above 0")
    if not arguments.get("push_to_hub"):
        for name in _HUB_SETTINGS:
            if arguments.get(name):
                yield _needs(name, arguments, "train.push_to_hub: true")
    if arguments.get("deepspeed") and arguments.get("fsdp"):
        yield Problem(key="train.fsdp", what="train.deepspeed is set as well", fix="choose one of the two")


def _value_of(name: str, arguments: dict[str, Any]) -> Any:
    """Return a setting of `TrainingArguments`: as given, or its default in the installed release."""
    return arguments[name] if name in arguments else argument_fields()[name].default


def _needs(name: str, arguments: dict[str, Any], needed: str) -> Problem:
    what = "cannot take effect as the other settings stand"
    return Problem(key=f"train.{name}", value=shown_value(arguments[name]), what=what, fix=f"set {needed}")
