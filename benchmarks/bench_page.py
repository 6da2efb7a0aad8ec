"""The table of `make bench` in the lab book, between two markers that only it writes between.

Rows lie in a JSON file beside the code, so that a run of some works, or of the quick ones, replaces
its own rows and leaves the others.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from benchmarks.bench_rows import BenchRow, as_json, from_json
from benchmarks.bench_works import QUICK, WORKS
from benchmarks.job import System

BEGIN = "<!-- bench: begin; written by `make bench` and `make bench-quick` -->"
END = "<!-- bench: end -->"
_ORDER = {work.key: number for number, work in enumerate((*WORKS, *QUICK))}
_FULL = frozenset(work.key for work in WORKS)
_HEADINGS = (
    *("work", "layers", "than TRL", "than TRL's default", "than Trainer"),
    *("goal", "limit", "matrix rate", "memory: ours, Trainer", "losses differ by (at most)"),
)
_QUICK_HEADINGS = (
    "work",
    "layers",
    "than TRL",
    "floor",
    "matrix rate",
    "losses differ by (at most)",
)


def read_kept(path: Path) -> list[BenchRow]:
    """Return the rows of earlier runs; none where there is no file."""
    if not path.exists():
        return []
    return [from_json(row) for row in json.loads(path.read_text(encoding="utf-8"))]


def keep(path: Path, rows: Sequence[BenchRow]) -> None:
    """Write the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps([as_json(row) for row in rows], indent=1)
    path.write_text(f"{content}\n", encoding="utf-8")


def replaced(
    rows: Iterable[BenchRow], name: tuple[str, str], new: BenchRow | None
) -> list[BenchRow]:
    """Return the rows with that of a work and a precision replaced, or taken out, in the table's
    order."""
    kept = [row for row in rows if (row.key, row.setting.precision) != name]
    kept += [new] if new is not None else []
    return sorted(kept, key=lambda row: (_ORDER.get(row.key, len(_ORDER)), row.setting.precision))


def write_page(path: Path, rows: Sequence[BenchRow]) -> None:
    """Put the table between the markers of a page.

    Raises:
        ValueError: the page has not each marker once, the first one first.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{path}: needs the lines {BEGIN!r} and {END!r}, each once, in this order")
    path.write_text(f"{before}{BEGIN}\n\n{table(rows)}\n{END}{after}", encoding="utf-8")


def table(rows: Sequence[BenchRow]) -> str:
    """Return the tables as Markdown: the works of `make bench`, then those of `make bench-quick`.

    Rows that were measured with different settings stand in tables of their own.
    """
    if not rows:
        return "Not measured yet.\n"
    parts = []
    for is_full, heads in ((True, _HEADINGS), (False, _QUICK_HEADINGS)):
        chosen = [row for row in rows if (row.key in _FULL) == is_full]
        for title, members in _by_setting(chosen).items():
            command = "make bench" if is_full else "make bench-quick"
            cells = [_full_cells(row) if is_full else _quick_cells(row) for row in members]
            lines = [_line(heads), "|---" * len(heads) + "|", *map(_line, cells)]
            parts.append(f"`{command}`, {title}:\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _by_setting(rows: Iterable[BenchRow]) -> Mapping[str, list[BenchRow]]:
    found: dict[str, list[BenchRow]] = {}
    for row in rows:
        found.setdefault(_setting_text(row), []).append(row)
    return found


def _setting_text(row: BenchRow) -> str:
    setting = row.setting
    threads = f"{setting.num_threads} thread{'s' if setting.num_threads > 1 else ''}"
    versions = ", ".join(f"{name} {number}" for name, number in setting.versions.items())
    tiny = ", tiny dimensions (these figures mean nothing)" if setting.is_tiny else ""
    return f"{setting.cpu}, {threads}, {setting.precision}{tiny}, {versions}"


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _full_cells(row: BenchRow) -> tuple[str, ...]:
    memory = [
        f"{row.above_model_bytes[system] / 1e9:.2f} GB" if system in row.above_model_bytes else ""
        for system in ("ours", "trainer")
    ]
    ratios = [_ratio_text(row, system) for system in ("trl", "trl_default", "trainer")]
    return (
        row.title,
        _layers(row),
        f"**{ratios[0]}**",
        *ratios[1:],
        _number(row.goal),
        _number(row.limit),
        _share(row),
        ", ".join(text for text in memory if text),
        _losses(row),
    )


def _quick_cells(row: BenchRow) -> tuple[str, ...]:
    verdict = " (**below**)" if row.is_below_floor else ""
    return (
        row.title,
        _layers(row),
        f"**{_ratio_text(row, 'trl')}**",
        f"{_number(row.floor)}{verdict}",
        _share(row),
        _losses(row),
    )


def _ratio_text(row: BenchRow, system: System) -> str:
    ratio = row.ratios.get(system)
    if ratio is None:
        return ""
    spread = "" if ratio.least == ratio.most else f" ({ratio.least:.2f} to {ratio.most:.2f})"
    return f"{ratio.median:.2f}x{spread}"


def _layers(row: BenchRow) -> str:
    return " + ".join(str(number) for number in row.setting.layers)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}x"


def _losses(row: BenchRow) -> str:
    return f"{row.loss_difference:.0e} ({row.loss_bound:.0e})"


def _share(row: BenchRow) -> str:
    return "" if row.matrix_share is None else f"{row.matrix_share:.0%}"
