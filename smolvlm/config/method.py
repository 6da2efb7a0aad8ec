"""The run file's `train.method`: a word, or a mapping of a type and its own settings.

    method: dpo                  method: {type: dpo, beta: 0.1}
    beta: 0.1

Both say the same. In the mapping a setting stands with the method that reads it, so that a setting of another method
cannot be written at all.
"""

from collections.abc import Collection
from typing import Any

from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.suggestions import did_you_mean

SETTINGS_OF_METHOD: dict[str, tuple[str, ...]] = {
    "sft": (),
    "dpo": (
        *("loss_type", "beta", "label_smoothing", "margin", "sft_weight"),
        *("reference", "reference_model"),
    ),
}
"""Type of a method -> the names of `train` that it reads."""


def with_flat_method(
    settings: dict[str, Any], overridden: Collection[str], *, problems: list[Problem]
) -> dict[str, Any]:
    """Return the settings with a method's mapping laid out flat beside `train.method`.

    Args:
        settings: the run file's sections, overrides in place.
        overridden: keys that were given on the command line; they win over the mapping.
        problems: receives what is wrong with the mapping.
    """
    train = settings.get("train")
    method = train.get("method") if isinstance(train, dict) else None
    if not isinstance(train, dict) or not isinstance(method, dict):
        return settings
    kind = method.get("type")
    if not isinstance(kind, str) or kind not in SETTINGS_OF_METHOD:
        what = "is required, and missing" if kind is None else "no such method"
        types = list(SETTINGS_OF_METHOD)
        fix = (did_you_mean(kind, types) if isinstance(kind, str) else None) or f"write {' or '.join(types)}"
        value = None if kind is None else shown_value(kind)
        problems.append(Problem(key="train.method.type", value=value, what=what, fix=fix))
        return {**settings, "train": {name: value for name, value in train.items() if name != "method"}}
    flat = {**train, "method": kind}
    names = SETTINGS_OF_METHOD[kind]
    for name, value in method.items():
        key = f"train.method.{name}"
        if name == "type" or f"train.{name}" in overridden:
            continue
        if name not in names:
            owners = [other for other, own in SETTINGS_OF_METHOD.items() if name in own]
            known = f"its settings are {', '.join(names)}" if names else f"{kind} has no settings of its own"
            fix = f"it belongs to {owners[0]}" if owners else did_you_mean(str(name), names) or known
            what = f"no setting of the method {kind}"
            problems.append(Problem(key=key, value=shown_value(value), what=what, fix=fix))
        elif name in train:
            what = f"given twice: train.{name} = {shown_value(train[name])} stands beside it"
            problems.append(Problem(key=key, value=shown_value(value), what=what, fix="keep one of the two"))
        else:
            flat[name] = value
    return {**settings, "train": flat}
