"""`python -m benchmarks.planning`: what a mixture of millions of rows costs a process, in memory and seconds.

Generated rows of text lie in JSON lines on disk, as a user's would; their sizes are generated too (measuring them
reads every row once and is timed on a sample). A fresh process then opens the rows, settles their sizes, plans an epoch
and reads rows in the plan's order. Reported: seconds of each stage, and by how much each raised the process's resident
memory, of which the mapped file's pages are the system's to take back.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SAMPLE_ROWS = 20_000


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--work-dir", type=Path, help="where the temporary rows lie")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside is not None:
        _inside(options.inside, options.rows, options.max_tokens)
        return 0
    with tempfile.TemporaryDirectory(dir=options.work_dir, prefix="smolvlm-planning-") as folder:
        _write_rows(Path(folder) / "rows.jsonl", options.rows)
        environment = os.environ | {"SMOLVLM_HOME": str(Path(folder) / "home")}
        command = [sys.executable, "-m", "benchmarks.planning", "--inside", folder, "--rows", str(options.rows)]
        for title in ("first time (the rows are converted)", "second time"):
            print(f"{options.rows:,} rows, {title}:", flush=True)
            subprocess.run([*command, "--max-tokens", str(options.max_tokens)], env=environment, check=True)
    return 0


def _write_rows(path: Path, num_rows: int) -> None:
    random = np.random.default_rng(0)
    with path.open("w") as file:
        for number, words in enumerate(random.integers(3, 40, num_rows).tolist()):
            file.write(json.dumps({"question": f"What is {number}? " + "word " * words, "answer": "a number"}) + "\n")


def _resident_mb() -> tuple[float, float]:
    """Return (all, anonymous) resident memory of this process in MB."""
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(fields[name].split()[0]) / 1e3 for name in ("VmRSS", "RssAnon"))  # type: ignore[return-value]


class _Stage:
    """Prints what happened since the last stage."""

    def __init__(self) -> None:
        self._since, self._before = time.perf_counter(), _resident_mb()

    def done(self, name: str) -> None:
        seconds, now = time.perf_counter() - self._since, _resident_mb()
        growth = [f"{after - before:+8.1f}" for after, before in zip(now, self._before, strict=True)]
        print(f"  {name:<34} {seconds:8.2f} s   resident {growth[0]} MB, of it anonymous {growth[1]} MB", flush=True)
        self._since, self._before = time.perf_counter(), now


def _inside(folder: Path, num_rows: int, max_tokens: int) -> None:
    import pyarrow as pa

    from smolvlm.datasets.lengths import SIZES, Budget
    from smolvlm.datasets.measured import settle_rows
    from smolvlm.datasets.mixture import load_mixture
    from smolvlm.datasets.plan import PlanSettings, plan_training
    from smolvlm.datasets.rows import open_sources

    begin, stage = _resident_mb(), _Stage()
    sources = open_sources(load_mixture([{"path": "rows.jsonl"}], base_dir=folder))
    stage.done("open the rows")
    random = np.random.default_rng(1)
    tokens = np.clip(random.lognormal(4.5, 0.8, num_rows), 10, max_tokens).astype(np.int32)
    zeros, nothing = np.zeros(num_rows, np.int32), pa.nulls(num_rows, pa.string())
    columns = {"num_tokens": tokens, "num_tiles": (tokens // 128).astype(np.int32), "row": sources[0].rows}
    by_name = {name: columns.get(name, zeros) for name in SIZES.names[:-3]}
    sizes = pa.table([pa.array(by_name[name]) for name in by_name] + [nothing] * 3, names=SIZES.names).cast(SIZES)
    budget = Budget(max_tokens=max_tokens, max_tiles=64)
    stage.done("(generate their sizes)")
    measured = settle_rows(sources, [sizes], budget=budget, on_bad_sample="error", max_bad_fraction=0.0)
    del sizes, columns, by_name, tokens, zeros, nothing
    stage.done("settle the sizes")
    settings = PlanSettings(budget=budget, packs_per_step=4, share_media=True, max_branches=16, seed=0)
    plan = plan_training(measured.lengths, settings)
    stage.done("plan an epoch")
    for pack in (plan.packs[number] for number in range(min(len(plan.packs), SAMPLE_ROWS // 32))):
        for rows in pack.samples:
            for row in rows:
                measured.conversations[row]
    stage.done(f"read {SAMPLE_ROWS:,} rows in its order")
    now = _resident_mb()
    print(
        f"  in all: resident {now[0] - begin[0]:+.1f} MB, of it anonymous {now[1] - begin[1]:+.1f} MB; peak of the "
        f"process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB; fill {plan.token_fill:.2%} of "
        f"tokens, {plan.tile_fill:.2%} of tiles, {plan.num_steps:,} steps"
    )


if __name__ == "__main__":
    sys.exit(main())
