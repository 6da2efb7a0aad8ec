"""`python -m benchmarks.planning`: what a mixture of millions of rows costs a process, in memory
and seconds.

Generated rows lie in JSON lines on disk, as a user's would; their sizes lie in the cache folder, as
a finished measurement leaves them (measuring reads every row once). Another process generates both,
so that none of its memory counts. A fresh process then opens the rows, reads and settles their
sizes, plans an epoch, deals its packs to ranks and reads rows in the plan's order. Reported of each
stage: seconds, seconds of the processor, resident memory after it and its peak within, over the
interpreter with its imports. Of resident memory the mapped file's pages are the system's to take
back; what is anonymous is the process's own.
"""

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.length_cache import measure_sources, parts_of, write_part
from smolvlm.datasets.packing.lengths import SIZES, Budget
from smolvlm.datasets.packing.measured import RowRequirements, settle_rows
from smolvlm.datasets.packing.plan import PlanSettings, deal_to_ranks, plan_training
from smolvlm.datasets.packing.row_digests import DIGESTS
from smolvlm.datasets.rows.conversations import OpenSource, open_sources
from smolvlm.datasets.rows.mixture import load_mixture
from smolvlm.parent_process import Parent

Made = TypeVar("Made")
SAMPLE_ROWS = 20_000
PICTURE_TOKENS = 66
"""What rows about one picture have in common: a tile with its wrapping."""


def main() -> int:
    """Run the benchmark and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.planning",
        description="What a mixture of millions of rows costs.",
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument(
        "--rows-per-picture",
        type=int,
        default=0,
        help="rows that may become a tree; 0 is texts alone",
    )
    parser.add_argument("--work-dir", type=Path, help="where the temporary rows lie")
    parser.add_argument("--stage", choices=("generate", "walk"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.stage == "generate":
        _generate(options.work_dir, options.rows, options.max_tokens, options.rows_per_picture)
        return 0
    if options.stage == "walk":
        _walk(options.work_dir, options.max_tokens)
        return 0
    with tempfile.TemporaryDirectory(dir=options.work_dir, prefix="smolvlm-planning-") as folder:
        environment = os.environ | {"SMOLVLM_HOME": str(Path(folder) / "home")}
        own = ["--rows", options.rows, "--max-tokens", options.max_tokens, "--work-dir", folder]
        own += ["--rows-per-picture", options.rows_per_picture]
        command = [sys.executable, "-m", "benchmarks.planning", *map(str, own), "--stage"]
        command = Parent.here().command(command)
        subprocess.run([*command, "generate"], env=environment, check=True)
        shutil.rmtree(Path(folder) / "home" / "rows")
        for title in ("first time (the rows are converted)", "second time"):
            print(f"{options.rows:,} rows, {title}:", flush=True)
            subprocess.run([*command, "walk"], env=environment, check=True)
    return 0


def _generate(folder: Path, num_rows: int, max_tokens: int, rows_per_picture: int) -> None:
    """Write rows, a checkpoint's prompt settings, and the rows' sizes."""
    from benchmarks.model_files import write_model
    from smolvlm.checkpoints.load import load_processor
    from smolvlm.datasets.encoding.prompts import read_prompt_settings

    random = np.random.default_rng(0)
    with (folder / "rows.jsonl").open("w") as file:
        for number, words in enumerate(random.integers(3, 40, num_rows).tolist()):
            file.write(
                json.dumps(
                    {"question": f"What is {number}? " + "word " * words, "answer": "a number"}
                )
                + "\n"
            )
    write_model(folder / "model", is_tiny=True)
    prompt = read_prompt_settings(load_processor(str(folder / "model")))
    (folder / "prompt").write_bytes(pickle.dumps(prompt))
    picture_keys = (
        random.integers(1, 2**63, num_rows // rows_per_picture + 1) if rows_per_picture else None
    )
    for part in parts_of(0, _open(folder)[0], prompt, keeps_all=True):
        assert part.file is not None
        write_part(_sizes(part.rows, picture_keys, max_tokens, random), part.file)


def _sizes(
    rows: np.ndarray, picture_keys: np.ndarray | None, max_tokens: int, random: np.random.Generator
) -> pa.Table:
    """Return sizes of some rows: texts of a median of 90 tokens, each about any of the pictures."""
    has_picture = int(picture_keys is not None)
    tokens = np.clip(random.lognormal(4.5, 0.8, len(rows)), 10, max_tokens - PICTURE_TOKENS).astype(
        np.int32
    )
    columns = {
        "row": rows,
        "num_tokens": tokens + PICTURE_TOKENS * has_picture,
        "num_positions": tokens + PICTURE_TOKENS * has_picture,
        "num_tiles": np.full(len(rows), 1) if has_picture else tokens // 128,
        "num_supervised_tokens": tokens // 2,
        "prefix_tokens": np.full(len(rows), PICTURE_TOKENS * has_picture),
        "prefix_tiles": np.full(len(rows), has_picture),
        "prefix_key": np.zeros(len(rows))
        if picture_keys is None
        else random.choice(picture_keys, len(rows)),
        "modality": np.full(len(rows), has_picture),
        **{name: random.integers(1, 2**62, len(rows)) for name in DIGESTS},
    }
    return pa.table(
        [columns.get(name, pa.nulls(len(rows))) for name in SIZES.names], names=SIZES.names
    ).cast(SIZES)


def _open(folder: Path) -> tuple[OpenSource, ...]:
    return open_sources(load_mixture([{"path": "rows.jsonl"}], base_dir=folder))


class _Memory:
    """Prints what each stage took; memory in MB over what this process had at first."""

    def __init__(self) -> None:
        self._first = self._now()
        self.first_mb = self._first["VmRSS"]

    @staticmethod
    def _now() -> dict[str, float]:
        fields = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        return {name: int(fields[name].split()[0]) / 1e3 for name in ("VmRSS", "RssAnon", "VmHWM")}

    def stage(self, name: str, function: Callable[[], Made]) -> Made:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        begin, cpu_begin = time.perf_counter(), time.process_time()
        made = function()
        seconds, cpu_seconds, now = (
            time.perf_counter() - begin,
            time.process_time() - cpu_begin,
            self._now(),
        )
        after, anonymous = (now[field] - self._first[field] for field in ("VmRSS", "RssAnon"))
        peak = now["VmHWM"] - self.first_mb
        print(
            f"  {name:<34} {seconds:6.2f} s, CPU {cpu_seconds:6.2f} s   after {after:+7.1f} MB, of "
            "it anonymous "
            f"{anonymous:+7.1f} MB; peak {peak:+7.1f} MB",
            flush=True,
        )
        return made


def _walk(folder: Path, max_tokens: int) -> None:
    prompt: PromptSettings = pickle.loads((folder / "prompt").read_bytes())
    budget = Budget(max_tokens=max_tokens, max_tiles=64)
    settings = PlanSettings(
        budget=budget, packs_per_step=4, share_media=True, max_branches=16, seed=0
    )
    memory = _Memory()
    print(f"  interpreter with its imports: {memory.first_mb:.0f} MB resident")
    sources = memory.stage("open the rows", lambda: _open(folder))
    sizes = memory.stage("read their sizes", lambda: measure_sources(sources, prompt))
    measured = memory.stage(
        "settle the sizes",
        lambda: settle_rows(
            sources,
            sizes,
            requirements=RowRequirements(budget=budget),
            on_bad_sample="error",
            max_bad_fraction=0.0,
        ),
    )
    del sizes
    plan = memory.stage("plan an epoch", lambda: plan_training(measured.lengths, settings))
    memory.stage(
        "deal packs to 4 ranks",
        lambda: deal_to_ranks(plan, num_ranks=4, cost_per_token=1.0, cost_per_tile=90.0),
    )

    def read() -> None:
        for pack in (
            plan.packs[number] for number in range(min(len(plan.packs), SAMPLE_ROWS // 32))
        ):
            for row in (row for rows in pack.samples for row in rows):
                measured.conversations[row]

    memory.stage(f"read some {SAMPLE_ROWS:,} rows in its order", read)
    print(
        f"  fill {plan.token_fill:.2%} of tokens, {plan.tile_fill:.2%} of tiles, "
        f"{plan.num_steps:,} steps; "
        f"plan {plan.packs.digest()}"
    )


if __name__ == "__main__":
    sys.exit(main())
