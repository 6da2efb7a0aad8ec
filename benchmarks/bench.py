"""`python -m benchmarks.bench [--quick]`: ours against TRL and transformers, work by work.

In: the works of `benchmarks.bench_works`. Out: the table in `docs/results.md`, its picture, and the
rows as JSON, renewed after each work, so that an interrupted run keeps what it has. For each work
every system gets a worker that stays, with the same random weights, rows, optimizer, precision,
thread count and allocator settings; they take turns of one optimizer step, and processor time is
compared. Row and picture are refused where losses differ (exit status 3); a quick run fails where a
ratio is below its floor (exit status 4).

bf16 is measured where the CPU has bfloat16 units, float32 elsewhere; `--precision both` does both.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.bench_figure import write_figures
from benchmarks.bench_page import keep, read_kept, replaced, write_page
from benchmarks.bench_rows import BenchRow, LossesDifferError, Setting, bench_row
from benchmarks.bench_works import QUICK, WORKS, Work
from benchmarks.job import Job, Precision, steps_of
from benchmarks.processes import write_model_apart
from benchmarks.rows import draw_steps, write_rows
from benchmarks.turns import measure_jobs

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "bench_rows.json"
PAGE = ROOT / "docs" / "results.md"
FIGURES = ROOT / "docs" / "figures"
SEED = 0
EXIT_LOSSES_DIFFER, EXIT_BELOW_FLOOR = 3, 4
_LIBRARIES = ("torch", "transformers", "trl")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the works and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.tiny and options.kept == KEPT:
        parser.error("--tiny measures nothing: name files for it with --kept, --page and --figures")
    works = [work for work in _works(options) if not options.only or work.key in options.only]
    if not works:
        names = ", ".join(work.key for work in _works(options))
        parser.error(f"--only names none of the works: {names}")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    rows, refused, below = read_kept(options.kept), [], []
    for precision in precisions(options.precision):
        for work in works:
            row = _measure(work, precision, options)
            rows = replaced(rows, (work.key, precision), row)
            keep(options.kept, rows)
            write_page(options.page, rows)
            write_figures(options.figures, rows)
            refused += [work.key] if row is None else []
            below += [work.key] if row is not None and row.is_below_floor else []
    for what, keys in (("losses differ", refused), ("below the floor", below)):
        if keys:
            print(f"{what}: {', '.join(keys)}", flush=True)
    if refused:
        return EXIT_LOSSES_DIFFER
    return EXIT_BELOW_FLOOR if below else 0


def _works(options: argparse.Namespace) -> tuple[Work, ...]:
    return QUICK if options.quick else WORKS


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bench", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="a few ratios, held to their floors")
    parser.add_argument("--only", action="append", help="this work; may be repeated")
    parser.add_argument(
        "--precision",
        choices=("auto", "bf16", "float32", "both"),
        default="auto",
        help="bf16 is autocast; auto takes it where the CPU has bfloat16 units",
    )
    parser.add_argument("--threads", type=int, default=2, help="of each worker")
    parser.add_argument("--rounds", type=int, help="measured steps, instead of each work's own")
    parser.add_argument(
        "--tiny", action="store_true", help="tiny dimensions: checks the works, measures nothing"
    )
    parser.add_argument("--kept", type=Path, default=KEPT, help="JSON file of the rows")
    parser.add_argument("--page", type=Path, default=PAGE, help="page with the two markers")
    parser.add_argument("--figures", type=Path, default=FIGURES, help="folder of the picture")
    parser.add_argument("--work-dir", type=Path, help="where temporary checkpoints (1 GB) lie")
    return parser


def precisions(asked: str) -> tuple[Precision, ...]:
    """Return the precisions to measure, as `--precision` asks."""
    if asked == "both":
        return ("bf16", "float32")
    if asked == "auto":
        from smolvlm.train.bf16_units import has_bf16_units  # imports torch

        return ("bf16",) if has_bf16_units() else ("float32",)
    return ("bf16",) if asked == "bf16" else ("float32",)


def _measure(work: Work, precision: Precision, options: argparse.Namespace) -> BenchRow | None:
    """Measure one work; None where the losses differ."""
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-", dir=options.work_dir) as folder:
        jobs = jobs_of(
            work,
            Path(folder),
            precision=precision,
            num_threads=options.threads,
            is_tiny=options.tiny,
            rounds=options.rounds,
        )
        write_model_apart(
            jobs[0].model_dir,
            is_tiny=options.tiny,
            layers=work.layers,
            image_splitting=work.shape.content in ("wide_picture", "page"),
        )
        results = measure_jobs(jobs, compares_rows=False)
    setting = Setting(
        precision=precision,
        num_threads=options.threads,
        layers=work.layers,
        num_rows=len(jobs[0].steps[0].rows),
        cpu=cpu_name(),
        versions={name: version(name) for name in _LIBRARIES},
        is_tiny=options.tiny,
    )
    try:
        row = bench_row(work, results, setting, wall_s=time.perf_counter() - begun)
    except LossesDifferError as error:
        print(f"refused: {error}", flush=True)
        return None
    ratios = ", ".join(f"{system} {ratio.median:.2f}x" for system, ratio in row.ratios.items())
    print(
        f"{work.key}, {precision}: {ratios}; losses within {row.loss_difference:.1e}; "
        f"{row.wall_s:.0f} s",
        flush=True,
    )
    return row


def jobs_of(
    work: Work,
    folder: Path,
    *,
    precision: Precision,
    num_threads: int,
    is_tiny: bool = False,
    rounds: int | None = None,
) -> list[Job]:
    """Write a work's rows and return a job for each of its systems, equal in all but the system.

    Args:
        folder: for rows and logs; the checkpoint has to be written to its `model`.
        rounds: measured steps, instead of the work's own.
    """
    shape = work.tiny_shape if is_tiny else work.shape
    num_steps = (rounds or work.rounds) + 2
    rows_file = write_rows(
        folder / "rows",
        num_pictures=num_steps * shape.pictures,
        questions_per_picture=shape.questions_per_picture,
        seed=SEED,
        content=shape.content,
    )
    drawn = draw_steps(num_steps=num_steps, rows_per_step=shape.num_rows, seed=SEED)
    return [
        Job(
            system=system,
            scenario=work.scenario,
            variant=work.variant,
            precision=precision,
            model_dir=folder / "model",
            rows_file=rows_file,
            work_dir=folder / "work",
            batch_size=shape.batch_size,
            steps=steps_of(work.variant, drawn, has_later_pass=work.span == "three_epochs"),
            num_threads=num_threads,
            tiles_a_row=shape.tiles_a_row,
            max_tokens_per_pack=work.max_tokens_per_pack,
            checkpoints_activations=work.checkpoints_activations,
        )
        for system in work.systems
    ]


def cpu_name() -> str:
    """Return the CPU's name and what units it has for bfloat16, as its system says."""
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    fields = dict(
        (part.strip() for part in line.split(":", 1))
        for line in info.read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        if ":" in line
    )
    flags = fields.get("flags", "").split()
    units = [title for flag, title in _UNITS if flag in flags]
    name = fields.get("model name", platform.machine())
    return f"{name} ({', '.join(units) or 'no AVX2'})"


_UNITS = (
    ("avx2", "AVX2"),
    ("avx512f", "AVX-512"),
    ("avx512_bf16", "AVX512-BF16"),
    ("amx_bf16", "AMX"),
)

if __name__ == "__main__":
    sys.exit(main())
