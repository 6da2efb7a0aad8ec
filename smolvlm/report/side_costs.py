"""What runs took, beside each other: steps, time, samples, memory, and where they ran.

In: runs as they are read from their folders. Out: rows of words, a cell a run.
"""

from collections.abc import Callable, Mapping, Sequence
from statistics import median

from smolvlm.report.files import RunFiles, training_seconds
from smolvlm.report.places import device_words, duration, when

NOT_SET = "—"
"""The cell of a run that does not say."""


def cost_rows(runs: Sequence[RunFiles]) -> list[tuple[str, tuple[str, ...]]]:
    """Return name and cells of what at least one run says."""
    rows = [(name, tuple(cost(run) or NOT_SET for run in runs)) for name, cost in COSTS.items()]
    return [(name, cells) for name, cells in rows if set(cells) != {NOT_SET}]


def _sum(key: str) -> Callable[[RunFiles], str]:
    def summed(run: RunFiles) -> str:
        total = sum(line.get(key, 0) for line in run.train)
        return f"{total:,.0f}" if total else ""

    return summed


def _median(key: str, decimals: int) -> Callable[[RunFiles], str]:
    def middle(run: RunFiles) -> str:
        values = [line[key] for line in run.train if key in line]
        return f"{median(values):,.{decimals}f}" if values else ""

    return middle


def _of_start(run: RunFiles, key: str) -> str:
    if not run.starts:
        return ""
    newest = run.starts[-1]
    if key == "device":
        return device_words(newest.device)
    if key == "started":
        return when(newest.started_at)
    if key == "commit":
        return (newest.commit or "")[:12] + (" modified" if newest.is_modified else "")
    known = [start.seconds for start in run.starts if start.seconds is not None]
    words = duration(sum(known)) if known else ""
    return words + (" or more" if words and len(known) < len(run.starts) else "")


COSTS: Mapping[str, Callable[[RunFiles], str]] = {
    "steps": lambda run: f"{run.train[-1]['step']:,.0f}" if run.train else "",
    "time in steps": lambda run: duration(training_seconds(run.train)) if run.train else "",
    "time in all": lambda run: _of_start(run, "seconds"),
    "samples": _sum("num_samples"),
    "tokens": _sum("num_tokens"),
    "learned tokens": _sum("num_supervised_tokens"),
    "samples a second": _median("samples_per_s", 1),
    "peak memory, GB": lambda run: (
        f"{max(line.get('peak_memory_gb', 0) for line in run.train):.1f}" if run.train else ""
    ),
    "device": lambda run: _of_start(run, "device"),
    "started": lambda run: _of_start(run, "started"),
    "commit": lambda run: _of_start(run, "commit"),
}
"""Name of a cost -> its words; empty where a run does not say."""
