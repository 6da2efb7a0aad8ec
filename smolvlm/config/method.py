"""The training methods of a run file, each with its settings: `train.method`.

    method: dpo                  method: {type: dpo, beta: 0.1}
    beta: 0.1

Both say the same, and both become a value of `MethodConfig`: a run has the settings of its own
method and no others. What is written to `run.yaml` is the flat spelling.

To add a method: its section here, as a member of `MethodConfig`; what it does stands in
`smolvlm/train/methods/`.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, get_args

from pydantic import Field

from smolvlm.config.adapters import PARTS
from smolvlm.config.problems import Problem, shown_value
from smolvlm.config.section import Section
from smolvlm.config.suggestions import did_you_mean
from smolvlm.config.yaml_text import Settings

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

RowKind = Literal["conversation", "preference"]
"""What a row is: answers to learn, or a better and a worse answer."""
PreferenceLoss = Literal["sigmoid", "robust", "hinge", "ipo", "simpo", "orpo"]
REFERENCE_FREE: frozenset[PreferenceLoss] = frozenset({"simpo", "orpo"})
"""Losses that compare nothing with a reference."""
_READERS: Mapping[str, tuple[PreferenceLoss, ...]] = {
    "label_smoothing": ("sigmoid", "robust"),
    "margin": ("simpo",),
}
"""Setting -> the losses that read it; settings that are not here are read by every loss."""
_COMPUTED_BEFORE = "set train.reference: precomputed"


class SftMethod(Section):
    """Learn the answers."""

    ROWS: ClassVar[RowKind] = "conversation"

    type: Literal["sft"] = "sft"


class DpoMethod(Section):
    """Learn which of two answers is preferred."""

    ROWS: ClassVar[RowKind] = "preference"

    type: Literal["dpo"] = "dpo"
    loss_type: PreferenceLoss = "sigmoid"
    """How the two answers are compared."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """What it costs to leave the reference; for `orpo` the weight of the odds ratio."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of pairs taken to be the wrong way round; of `sigmoid` and `robust`."""
    margin: Annotated[float, Field(ge=0)] = 0.0
    """What the better answer's reward should exceed the worse one's by; of `simpo`."""
    sft_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the better answer's own loss."""
    reference: Literal["precomputed", "adapter_off", "copy"] = "precomputed"
    """Whether the reference's judgement is computed before training, or asked in every step of the
    model without its adapters, or of a frozen copy."""
    reference_model: Annotated[str, Field(min_length=1)] | None = None
    """A hub id or a folder; None is the model that is trained, as it is at the start."""

    @property
    def needs_reference(self) -> bool:
        return self.loss_type not in REFERENCE_FREE

    def problems(self, config: "RunConfig") -> Iterator[Problem]:
        """Yield settings that the loss ignores, and a reference that cannot be what it says."""
        for name, losses in _READERS.items():
            if self.loss_type not in losses:
                yield from self._without_effect(name, f"train.loss_type = {self.loss_type}")
        if config.data.loss_weighting != "token":
            what, value = (
                "has no effect with train.method = dpo",
                shown_value(config.data.loss_weighting),
            )
            yield Problem(key="data.loss_weighting", value=value, what=what, fix="take it out")
        if not self.needs_reference:
            for name in ("reference", "reference_model"):
                yield from self._without_effect(
                    name, f"train.loss_type = {self.loss_type}, which needs no reference"
                )
        elif self.reference != "precomputed":
            yield from self._online_problems(config)

    def _without_effect(self, name: str, cause: str) -> Iterator[Problem]:
        value = getattr(self, name)
        if value != DpoMethod.model_fields[name].default:
            yield without_effect(name, value, cause)

    def _online_problems(self, config: "RunConfig") -> Iterator[Problem]:
        key, value = "train.reference", shown_value(self.reference)
        if self.reference_model is not None:
            what = f"the reference is the model itself with train.reference = {self.reference}"
            other = shown_value(self.reference_model)
            yield Problem(key="train.reference_model", value=other, what=what, fix=_COMPUTED_BEFORE)
        if config.train.engine != "ddp":
            what = (
                "a reference that is asked in the step was not tried with train.engine: "
                f"{config.train.engine}"
            )
            yield Problem(key=key, value=value, what=what, fix=_COMPUTED_BEFORE)
        if self.reference == "adapter_off":
            for what, fix in _adapter_off_problems(config):
                yield Problem(key=key, value=value, what=what, fix=fix)


def _adapter_off_problems(config: "RunConfig") -> Iterator[tuple[str, str]]:
    """Yield why the model without its adapters would not be the model at the start."""
    adapters = {part: entry for part, entry in config.adapters.entries() if entry.is_adapter}
    if not adapters:
        what = "no tower has an adapter that could be switched off"
        yield what, f"name adapters, or {_COMPUTED_BEFORE}"
        return
    whole = [PARTS[part] for part in PARTS if part not in adapters and config.rate_of(part) > 0]
    if whole:
        rates = " and ".join(f"train.{name}" for name in whole)
        what = (
            f"a tower trains all its weights ({rates} above 0), so without adapters it is not what "
            f"it was"
        )
        yield what, f"set {rates} to 0, or {_COMPUTED_BEFORE}"
    if any(entry.type == "pissa" for entry in adapters.values()):
        what = (
            "PiSSA takes its first values out of the base, so without adapters it is not what it "
            "was"
        )
        yield what, f"{_COMPUTED_BEFORE}, or copy"


MethodConfig = SftMethod | DpoMethod
METHODS: Mapping[str, type[SftMethod] | type[DpoMethod]] = {
    section.model_fields["type"].default: section for section in get_args(MethodConfig)
}
"""Type of a method -> its section."""
SETTINGS_OF_METHOD: Mapping[str, tuple[str, ...]] = {
    method_type: tuple(name for name in section.model_fields if name != "type")
    for method_type, section in METHODS.items()
}
"""Type of a method -> its settings, which `train` has beside it in the flat spelling."""
_OWNER = {name: method_type for method_type, names in SETTINGS_OF_METHOD.items() for name in names}


def without_effect(name: str, value: object, cause: str) -> Problem:
    """Return the problem of a setting of `train` that another setting leaves without effect."""
    what = f"has no effect with {cause}"
    return Problem(key=f"train.{name}", value=shown_value(value), what=what, fix="take it out")


def with_flat_method(
    train: Settings, *, overridden: Collection[str], problems: list[Problem]
) -> Settings:
    """Return the section `train` with a method's mapping laid out flat beside `method`.

    Args:
        train: as the run file writes it, overrides in place.
        overridden: settings of `train` that the command line gave; they win over the mapping.
        problems: receives what is wrong with the mapping.
    """
    method = train.get("method")
    if not isinstance(method, dict):
        return train
    method_type = method.get("type")
    if not isinstance(method_type, str) or method_type not in METHODS:
        what = "is required, and missing" if method_type is None else "no such method"
        meant = did_you_mean(method_type, METHODS) if isinstance(method_type, str) else None
        value = None if method_type is None else shown_value(method_type)
        fix = meant or f"write {' or '.join(METHODS)}"
        problems.append(Problem(key="train.method.type", value=value, what=what, fix=fix))
        return {name: value for name, value in train.items() if name != "method"}
    flat = {**train, "method": method_type}
    names = SETTINGS_OF_METHOD[method_type]
    for name, value in method.items():
        key = f"train.method.{name}"
        if name == "type" or name in overridden:
            continue
        if name not in names:
            known = (
                f"its settings are {', '.join(names)}"
                if names
                else f"{method_type} has no settings of its own"
            )
            owner = f"it belongs to {_OWNER[name]}" if name in _OWNER else None
            what = f"no setting of the method {method_type}"
            fix = owner or did_you_mean(str(name), names) or known
            problems.append(Problem(key=key, value=shown_value(value), what=what, fix=fix))
        elif name in train:
            what = f"given twice: train.{name} = {shown_value(train[name])} stands beside it"
            problems.append(
                Problem(key=key, value=shown_value(value), what=what, fix="keep one of the two")
            )
        else:
            flat[name] = value
    return flat


def with_method_section(train: Mapping[str, object], *, problems: list[Problem]) -> Settings:
    """Return the fields of `train`: the flat settings of its method gathered under `method`.

    Defaults of another method may stand in the file: earlier versions wrote them into every
    `run.yaml`.

    Args:
        train: the section in the flat spelling.
        problems: receives settings of another method.
    """
    fields = {name: value for name, value in train.items() if name not in _OWNER}
    method_type = train.get("method", SftMethod.model_fields["type"].default)
    if not isinstance(method_type, str) or method_type not in METHODS:
        return fields
    method: Settings = {"type": method_type}
    for name, value in train.items():
        if name in SETTINGS_OF_METHOD[method_type]:
            method[name] = value
        elif name in _OWNER and value != METHODS[_OWNER[name]].model_fields[name].default:
            problems.append(without_effect(name, value, f"train.method = {method_type}"))
    return fields | {"method": method}


def without_other_methods(settings: Settings) -> Settings:
    """Return a run's flattened settings without those of methods that it does not use.

    Checkpoints of earlier versions carry them.

    Args:
        settings: dotted key -> value.
    """
    names = SETTINGS_OF_METHOD.get(settings.get("train.method", ""), ())
    others = {f"train.{name}" for name in _OWNER if name not in names}
    return {key: value for key, value in settings.items() if key not in others}
