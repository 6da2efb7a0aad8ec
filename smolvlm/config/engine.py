"""The engine that shares a run's work over its ranks: `train.engine`.

    engine: fsdp2              fsdp: true
    engine: {type: deepspeed, config: zero2.json}      deepspeed: zero2.json

The second spelling of each is transformers', and is read too.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.suggestions import did_you_mean
from smolvlm.config.yaml_text import Settings

EngineName = Literal["ddp", "fsdp2", "deepspeed"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
_WHOLE_SHARDS = ("full_shard", "full_shard auto_wrap")
"""What transformers calls weights, gradients and moments in shards."""


def with_engine(train: Settings, *, problems: list[Problem]) -> Settings:
    """Return the section `train` with its engine under one name, as text.

    DeepSpeed's file stays the setting `deepspeed`, as transformers reads it.

    Args:
        train: as the run file writes it, overrides in place.
        problems: receives engines that contradict each other, and what cannot be read.
    """
    settings = {name: value for name, value in train.items() if name not in ("engine", "fsdp")}
    asked: dict[str, EngineName] = {}
    if "engine" in train:
        name = _named(train["engine"], settings, problems)
        if name is None:
            return settings
        asked["train.engine"] = name
    if train.get("fsdp"):
        asked["train.fsdp"] = _fsdp(train["fsdp"], problems)
    if settings.get("deepspeed") is not None:
        asked["train.deepspeed"] = "deepspeed"
    if len(set(asked.values())) > 1:
        (first, engine), *others = asked.items()
        key, other = next(pair for pair in others if pair[1] != engine)
        what = f"asks for {other}, and {first} for {engine}"
        problems.append(Problem(key=key, what=what, fix="choose one of the two"))
    engine = next(iter(asked.values()), None)
    if engine == "deepspeed" and settings.get("deepspeed") is None and "train.engine" in asked:
        what = "names no file of settings"
        fix = "write engine: {type: deepspeed, config: FILE}"
        problems.append(Problem(key="train.engine", value="'deepspeed'", what=what, fix=fix))
    return settings if engine is None else settings | {"engine": engine}


def _named(value: object, settings: Settings, problems: list[Problem]) -> EngineName | None:
    """Return the engine that a text or a mapping names; DeepSpeed's file goes to `settings`."""
    fields: Mapping[object, object] = value if isinstance(value, dict) else {"type": value}
    name = fields.get("type")
    if not isinstance(name, str) or name not in ENGINES:
        meant = did_you_mean(name, ENGINES) if isinstance(name, str) else None
        what = f"must be {', '.join(ENGINES[:-1])} or {ENGINES[-1]}"
        problems.append(Problem(key="train.engine", value=shown_value(name), what=what, fix=meant))
        return None
    known = ("type", "config") if name == "deepspeed" else ("type",)
    for other in fields.keys() - set(known):
        what = f"no setting of the engine {name}"
        key, shown = f"train.engine.{other}", shown_value(fields[other])
        problems.append(Problem(key=key, value=shown, what=what, fix="take it out"))
    if "config" in fields and name == "deepspeed":
        if settings.get("deepspeed") not in (None, fields["config"]):
            what = "given twice: train.deepspeed stands beside it"
            shown = shown_value(fields["config"])
            problems.append(
                Problem(
                    key="train.engine.config", value=shown, what=what, fix="keep one of the two"
                )
            )
        settings["deepspeed"] = fields["config"]
    return next(engine for engine in ENGINES if engine == name)


def _fsdp(value: object, problems: list[Problem]) -> EngineName:
    words = " ".join(map(str, value)) if isinstance(value, list) else value
    if words is not True and words not in _WHOLE_SHARDS:
        what = "only whole shards are built: of weights, gradients and moments"
        fix = "write true, or train.engine: fsdp2"
        problems.append(Problem(key="train.fsdp", value=shown_value(value), what=what, fix=fix))
    return "fsdp2"
