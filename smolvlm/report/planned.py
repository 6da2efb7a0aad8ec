"""What was planned of a run beside what it took: the rows of a table.

In: `plan.json`, as `smolvlm plan` leaves it in the run's folder, and the run's log lines. The first
line is warm-up and counts neither in a step's time nor in memory: pages and the optimizer's state
are new, kernels are chosen, and memory has not been at its peak. A plan that was made under other
settings says so.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Any

PLAN_FILE = "plan.json"
WARM_UP_LINES = 1
KEPT_SHARE = 0.99
"""Below this share of a first step, a later one is a line of its own."""


def plan_rows(
    plan: Mapping[str, Any], train: Sequence[Mapping[str, float]], *, settings: str
) -> list[tuple[str, str, str, str]]:
    """Return name, planned, measured and their difference.

    Args:
        plan: the file's content; empty where there is none.
        train: training lines, by step; one alone is not compared.
        settings: text of the run's `run.yaml`.
    """
    if not plan or len(train) <= WARM_UP_LINES:
        return []
    rows = [*_step_rows(plan, train), *_run_rows(plan, train)]
    peaks = [line["peak_memory_gb"] for line in train[WARM_UP_LINES:] if line.get("peak_memory_gb")]
    planned_bytes = _number(plan, "memory", "total")
    if peaks and planned_bytes:
        rows.append(_row("peak memory, GB", planned_bytes / 1e9, max(peaks), decimals=2))
    for key, name in (("steps", "steps"), ("device", "device")):
        if key in plan:
            measured = f"{train[-1]['step']:,.0f}" if key == "steps" else ""
            rows.append((name, str(plan[key]), measured, ""))
    if plan.get("settings") != settings:
        rows.append(("planned under other settings than the run's", "", "", ""))
    return rows


def _step_rows(
    plan: Mapping[str, Any], train: Sequence[Mapping[str, float]]
) -> Iterator[tuple[str, str, str, str]]:
    """Yield a step's time; of a run that keeps features, before and after they are kept."""
    first_s, later_s = (_number(plan, "time", f"{when}_step_s") for when in ("first", "later"))
    seconds, epochs = step_seconds(train)[WARM_UP_LINES:], train[WARM_UP_LINES:]
    timed = [(line.get("epoch", 0.0) > 1, one) for line, one in zip(epochs, seconds, strict=True)]
    if 0 < later_s < KEPT_SHARE * first_s:
        wanted = [("a step of the first epoch", first_s, (False,)), ("later", later_s, (True,))]
    else:
        wanted = [("a step", first_s, (False, True))]
    for name, planned_s, of_epochs in wanted:
        measured = [one for is_later, one in timed if one and is_later in of_epochs]
        if planned_s and measured:
            yield _row(f"{name}, s (median)", planned_s, median(measured), decimals=2)


def _run_rows(
    plan: Mapping[str, Any], train: Sequence[Mapping[str, float]]
) -> Iterator[tuple[str, str, str, str]]:
    """Yield the time of all steps and the tokens a second, of a run that did all of them."""
    planned_s = _number(plan, "time", "total_s") - _number(plan, "time", "before_s")
    each_s, steps = step_seconds(train), _steps_of_lines(train)
    if planned_s <= 0 or not all(each_s) or train[-1]["step"] != plan.get("steps"):
        return
    measured_s = sum(one * count for one, count in zip(each_s, steps, strict=True))
    yield _row("all steps, s", planned_s, measured_s, decimals=1)
    tokens = sum(line.get("num_tokens", 0.0) for line in train)
    if tokens and isinstance(plan.get("tokens"), int):
        yield _row("tokens/s", plan["tokens"] / planned_s, tokens / measured_s, decimals=0)


def step_seconds(train: Sequence[Mapping[str, float]]) -> list[float]:
    """Return the mean time of a step of each line, seconds: a line says its samples and samples a
    second. 0 where it does not."""
    return [
        line.get("num_samples", 0) / line["samples_per_s"] / steps
        if steps > 0 and line.get("samples_per_s")
        else 0.0
        for line, steps in zip(train, _steps_of_lines(train), strict=True)
    ]


def _steps_of_lines(train: Sequence[Mapping[str, float]]) -> list[float]:
    """Return how many steps each line is of."""
    ends = [0.0, *(line["step"] for line in train)]
    return [end - begin for begin, end in pairwise(ends)]


def _row(name: str, planned: float, measured: float, *, decimals: int) -> tuple[str, str, str, str]:
    shown = [f"{value:,.{decimals}f}" for value in (planned, measured)]
    return name, shown[0], shown[1], f"{planned / measured - 1:+.0%}"


def _number(plan: Mapping[str, Any], section: str, key: str) -> float:
    content = plan.get(section)
    value = content.get(key) if isinstance(content, dict) else None
    return float(value) if isinstance(value, int | float) else 0.0
