"""Settings of a preference run's reference that cannot take effect, or could not be what they say."""

from collections.abc import Iterator

from smolvlm.config.adapters import PARTS
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.schema import REFERENCE_FREE, RunConfig, TrainConfig

_COMPUTED_BEFORE = "set train.reference: precomputed"


def reference_problems(config: RunConfig) -> Iterator[Problem]:
    """Yield what is wrong with `train.reference` and `train.reference_model`."""
    train = config.train
    cause = None
    if train.method != "dpo":
        cause = f"train.method = {train.method}"
    elif train.loss_type in REFERENCE_FREE:
        cause = f"train.loss_type = {train.loss_type}, which needs no reference"
    for name in ("reference", "reference_model"):
        value = getattr(train, name)
        if cause is not None and value != TrainConfig.model_fields[name].default:
            what = f"has no effect with {cause}"
            yield Problem(key=f"train.{name}", value=shown_value(value), what=what, fix="take it out")
    if cause is None and train.reference != "precomputed":
        yield from _live_problems(config)


def _live_problems(config: RunConfig) -> Iterator[Problem]:
    train, key = config.train, "train.reference"
    value = shown_value(train.reference)
    if train.reference_model is not None:
        what = f"the reference is the model itself with train.reference = {train.reference}"
        yield Problem(
            key="train.reference_model", value=shown_value(train.reference_model), what=what, fix=_COMPUTED_BEFORE
        )
    for name in ("fsdp", "deepspeed"):
        if train.arguments.get(name):
            what = f"a reference that is asked in the step was not tried with train.{name}"
            yield Problem(key=key, value=value, what=what, fix=_COMPUTED_BEFORE)
    if train.reference == "adapter_off":
        yield from _adapter_off_problems(config, value)


def _adapter_off_problems(config: RunConfig, value: str) -> Iterator[Problem]:
    """Yield why the model without its adapters would not be the model as it was at the start."""
    key = "train.reference"
    adapters = {part: entry for part, entry in config.adapters.entries() if entry.is_adapter}
    if not adapters:
        fix = f"name adapters, or {_COMPUTED_BEFORE}"
        yield Problem(key=key, value=value, what="no tower has an adapter that could be switched off", fix=fix)
        return
    whole = [PARTS[part] for part in PARTS if part not in adapters and config.rate_of(part) > 0]
    if whole:
        rates = " and ".join(f"train.{name}" for name in whole)
        what = f"a tower trains all its weights ({rates} above 0), so without adapters it is not what it was"
        yield Problem(key=key, value=value, what=what, fix=f"set {rates} to 0, or {_COMPUTED_BEFORE}")
    if any(entry.type == "pissa" for entry in adapters.values()):
        what = "PiSSA takes its first values out of the base, so without adapters it is not what it was"
        yield Problem(key=key, value=value, what=what, fix=f"{_COMPUTED_BEFORE}, or copy")
