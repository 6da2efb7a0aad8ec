"""The table that a person reads: a line a stage, then every figure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpu_check.contract import Outcome

VALUE_WIDTH = 160


def render_table(outcomes: Sequence[Outcome]) -> str:
    """Return the report as text."""
    width = max(len(outcome.stage) for outcome in outcomes)
    lines = []
    for outcome in outcomes:
        seconds = f"{outcome.seconds:6.1f} of {outcome.limit_s:5.0f} s"
        lines.append(
            f"{outcome.stage:<{width}}  {outcome.status:<7}  {seconds}  {outcome.error}".rstrip()
        )
    for outcome in outcomes:
        lines += ["", f"{outcome.stage}: {outcome.status}"]
        figures = list(_flat(outcome.figures))
        name_width = max((len(name) for name, _ in figures), default=0)
        lines += [f"  {name:<{name_width}}  {_shown(value)}" for name, value in figures]
    counts = {
        status: sum(own.status == status for own in outcomes)
        for status in ("passed", "failed", "skipped")
    }
    lines += ["", ", ".join(f"{count} {status}" for status, count in counts.items())]
    return "\n".join(lines) + "\n"


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give figures one by one, nested ones under names joined by dots; lists of several entries a
    line each.
    """
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping | str):
            yield from ((f"{prefix}{name}[{number}]", entry) for number, entry in enumerate(value))
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= VALUE_WIDTH else text[: VALUE_WIDTH - 3] + "..."
