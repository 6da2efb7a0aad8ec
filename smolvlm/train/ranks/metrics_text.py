"""A run's newest figures as a text file that Prometheus reads: `metrics.prom`.

In: a line of `metrics.jsonl` and the ranks' beside it. Out: the file, replaced whole, in the
exposition format 0.0.4 (prometheus.io, "Exposition formats"); `node_exporter` passes it on when it
lies in the folder of its textfile collector, or is linked from there.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from smolvlm.disk.atomic_files import replacing

FILE_NAME = "metrics.prom"
_NO_NAME = re.compile(r"[^a-zA-Z0-9_]")
_NO_NUMBERS = {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}


def write_metrics_text(
    path: Path, line: Mapping[str, object], ranks: Mapping[str, object], *, run: str
) -> None:
    """Write the figures of a line.

    Args:
        path: of the file.
        line: of `metrics.jsonl`; what is no number is left out.
        ranks: of `ranks.jsonl`; empty where one process trains.
        run: the label `run` of every figure.

    Raises:
        OSError: it cannot be written.
    """
    with replacing(path, is_synced=False) as partial:
        partial.write_text("".join(_lines(line, ranks, run)), encoding="utf-8")


def _lines(line: Mapping[str, object], ranks: Mapping[str, object], run: str) -> Iterator[str]:
    label = f'run="{_escaped(run)}"'
    for name, value in line.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield from _gauge(name, [(label, value)])
    for name, values in ranks.items():
        if isinstance(values, Sequence) and not isinstance(values, str):
            figures = [
                (f'{label},rank="{rank}"', value)
                for rank, value in enumerate(values)
                if value is not None
            ]
            yield from _gauge(f"rank_{name}", figures)


def _gauge(name: str, figures: Sequence[tuple[str, float]]) -> Iterator[str]:
    metric = f"smolvlm_{_NO_NAME.sub('_', name)}"
    yield f"# TYPE {metric} gauge\n"
    for labels, value in figures:
        yield f"{metric}{{{labels}}} {_NO_NUMBERS.get(str(float(value)), value)}\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
