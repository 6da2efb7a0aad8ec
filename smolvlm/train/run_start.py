"""`run.json`: where and how a run computed, written once at its start, and the notes of that start.

In: `RunFacts`, the output folder, the checkpoint being resumed. Out: the file, and notes for
standard error. The newest start stands at the top of the file (`device`, `kernels`, `versions`,
`commit`, `sources`, and once it has ended `seconds`), those that led to the checkpoint under
`earlier`, oldest first. A change of precision between two starts is said and not refused: it
follows from the device that happened to be free.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from smolvlm.datasets.packing.measured import SourceCount
from smolvlm.disk.atomic_files import write_json
from smolvlm.train.bf16_units import faster_in_bf16
from smolvlm.train.run_facts import RunFacts

FILE_NAME = "run.json"


def begin_run(
    output_dir: Path,
    facts: RunFacts,
    *,
    resume: Path | None = None,
    is_precision_open: bool = False,
    sources: Sequence[SourceCount] = (),
) -> list[str]:
    """Write `run.json` and return the notes of this start, in lines; called on one rank of a run.

    Args:
        output_dir: the run's; it exists.
        facts: of this start.
        resume: the `checkpoint-<step>` folder being resumed; its run's starts are kept.
        is_precision_open: whether the run file leaves `train.bf16` open.
        sources: what became of each source's rows.
    """
    earlier, notes = _starts_before(resume.parent / FILE_NAME) if resume else ([], [])
    start = {
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "step": int(resume.name.rpartition("-")[2]) if resume else 0,
        **facts.as_json(),
    }
    if sources:
        start["sources"] = [_source(count) for count in sources]
    write_json(output_dir / FILE_NAME, start | {"earlier": earlier})
    notes = [facts.line(), *notes]
    if earlier:
        return notes + _precision_changes(earlier[-1], facts)
    is_float32 = facts.weights_dtype == "float32" and facts.autocast_dtype is None
    if resume is None and is_precision_open and is_float32 and facts.device_type == "cpu":
        notes += faster_in_bf16()
    return notes


def end_run(output_dir: Path, *, seconds: float) -> None:
    """Add to `run.json` how long the newest start took in all; a damaged file stays as it is.

    Args:
        output_dir: the run's.
        seconds: loading, steps, evaluations and saving, of this start alone.

    Raises:
        OSError: it cannot be written.
    """
    path = output_dir / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return
    if isinstance(content, dict):
        write_json(path, content | {"seconds": round(seconds, 1)})


def _source(count: SourceCount) -> dict[str, object]:
    return {
        "name": count.name,
        "num_rows": count.num_rows,
        "num_used": count.num_sampled - count.num_skipped,
        "repeat": count.repeat,
        "num_tokens": count.num_tokens,
        "num_tiles": count.num_tiles,
    }


def _starts_before(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a run's starts, oldest first, and a note where its file is damaged."""
    try:
        newest = json.loads(path.read_text(encoding="utf-8"))
        starts = [*newest.pop("earlier"), newest]
        is_whole = all(isinstance(start["kernels"], dict) for start in starts)
    except FileNotFoundError:
        return [], []
    except (ValueError, KeyError, TypeError, AttributeError):  # not JSON, or of another shape
        starts, is_whole = [], False
    if not is_whole:
        return [], [f"note: {path} is damaged, so the run's earlier starts are not kept"]
    return starts, []


def _precision_changes(before: Mapping[str, Any], facts: RunFacts) -> list[str]:
    """Return a note where the run computed in another precision before."""
    earlier = before["kernels"].get("autocast_dtype")
    if earlier == facts.autocast_dtype:
        return []
    device = before.get("device", {}).get("type", "another device")
    there = f"{earlier or facts.weights_dtype} on {device}"
    here = f"{facts.autocast_dtype or facts.weights_dtype} on {facts.device_type}"
    cure = f"train.bf16={'true' if earlier else 'false'} keeps the former precision"
    return [f"note: the run computed in {there} and goes on in {here}; {cure}"]
