"""What was planned of a run beside what it took: the rows of a table.

In: `plan.json`, as `smolvlm plan` leaves it in the run's folder, and the run's log lines. The first
line is warm-up and counts neither in time nor in memory: pages and the optimizer's state are new,
kernels are chosen, and memory has not been at its peak. A plan that was made under other settings
says so.
"""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

PLAN_FILE = "plan.json"
WARM_UP_LINES = 1


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
    rows: list[tuple[str, str, str, str]] = []
    step_s = step_seconds(train)
    planned_s = _number(plan, "time", "first_step_s")
    if step_s and planned_s:
        rows.append(_row("a step, s (median)", planned_s, step_s, decimals=2))
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


def step_seconds(train: Sequence[Mapping[str, float]]) -> float:
    """Return the median time of a step, seconds, the first line left out: each line says its
    samples and samples a second."""
    times: list[float] = []
    before = 0.0
    for line in train:
        steps = line["step"] - before
        if steps > 0 and line.get("samples_per_s"):
            times.append(line.get("num_samples", 0) / line["samples_per_s"] / steps)
        before = line["step"]
    return median(times[WARM_UP_LINES:]) if len(times) > WARM_UP_LINES else 0.0


def _row(name: str, planned: float, measured: float, *, decimals: int) -> tuple[str, str, str, str]:
    shown = [f"{value:,.{decimals}f}" for value in (planned, measured)]
    return name, shown[0], shown[1], f"{planned / measured - 1:+.0%}"


def _number(plan: Mapping[str, Any], section: str, key: str) -> float:
    content = plan.get(section)
    value = content.get(key) if isinstance(content, dict) else None
    return float(value) if isinstance(value, int | float) else 0.0
