"""`eval.best_by`: which of a run's evaluations is the best, and how many came since.

In: logged lines, a metric as a run file names it. Out: a `Best`. It is computed from the log, which
every checkpoint holds, so a run that was killed knows it again. The untrained model, step 0, is no
candidate: no checkpoint holds it.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smolvlm.config.argument_source import argument_fields
from smolvlm.config.eval_metrics import PREFIX, is_greater_better, metric_problem
from smolvlm.config.problems import Problem, shown_value

if TYPE_CHECKING:
    from smolvlm.config.schema import RunConfig

_DECIDED = ("metric_for_best_model", "greater_is_better", "load_best_model_at_end")
"""Settings of `TrainingArguments` that follow from `eval.best_by`."""
_KEY = "eval.best_by"


@dataclass(frozen=True, kw_only=True, slots=True)
class Best:
    """A run's best evaluation."""

    step: int
    value: float
    num_since: int
    """Evaluations after it; all were no better."""


def written_metric(best_by: str) -> str:
    """Return the name that an evaluation writes: `exact_match_photos` of `photos/exact_match`."""
    source, _, metric = best_by.rpartition("/")
    return f"{metric}_{source}" if source else metric


def best_evaluation(lines: Iterable[Mapping[str, Any]], best_by: str) -> Best | None:
    """Return the best evaluation; the first of several that are equal. None where there is none.

    Args:
        lines: of the log, oldest first; those without the metric are passed over.
        best_by: as the run file names it.
    """
    name = written_metric(best_by)
    sign = 1 if is_greater_better(name) else -1
    best: Best | None = None
    for line in lines:
        value = line.get(f"{PREFIX}{name}")
        if value is None or line["step"] == 0:
            continue
        is_better = best is None or sign * value > sign * best.value
        if is_better and value == value:  # a NaN is no better than anything
            best = Best(step=int(line["step"]), value=float(value), num_since=0)
        elif best is not None:
            best = Best(step=best.step, value=best.value, num_since=best.num_since + 1)
    return best


def best_problems(config: "RunConfig") -> Iterator[Problem]:
    """Yield what of `eval.best_by` and `eval.patience` cannot work beside the other settings."""
    best_by, patience = config.eval.best_by, config.eval.patience
    if best_by is None:
        if patience is not None:
            what = "has no effect without eval.best_by"
            fix = "set eval.best_by to `loss` or another metric, or take this out"
            yield Problem(key="eval.patience", value=str(patience), what=what, fix=fix)
        return
    value, arguments = shown_value(best_by), config.train.arguments
    if (unknown := metric_problem(written_metric(best_by))) is not None:
        yield Problem(key=_KEY, value=value, what=unknown)
    if config.data.eval_mixture is None:
        what, fix = "there is no data.eval_mixture to evaluate on", "name one, or take this out"
        yield Problem(key=_KEY, value=value, what=what, fix=fix)
    elif _value_of("eval_strategy", arguments) == "no":
        what, fix = (
            "nothing is evaluated during training",
            "set train.eval_strategy: steps or epoch",
        )
        yield Problem(key=_KEY, value=value, what=what, fix=fix)
    for name in _DECIDED:
        if arguments.get(name):
            what = f"has no effect with {_KEY} = {best_by}, which decides it"
            shown = shown_value(arguments[name])
            yield Problem(
                key=f"train.{name}", value=shown, what=what, fix="take one of the two out"
            )
    if (strategy := _value_of("save_strategy", arguments)) in ("no", "best"):
        what = f"cannot stand beside {_KEY} = {best_by}, which saves each new best besides"
        fix = "set it to steps or epoch, or leave it out"
        yield Problem(key="train.save_strategy", value=shown_value(strategy), what=what, fix=fix)


def _value_of(name: str, arguments: Mapping[str, Any]) -> Any:
    return arguments[name] if name in arguments else argument_fields()[name].default
