"""`python -m benchmarks.peers`: our trainer against TRL's and against transformers' own, on the
same rows.

Three processes, one a system, each with the same random weights at the 256M model's dimensions,
take turns of one optimizer step on the same rows, at the same precision, with the same optimizer
and learning rates. Reading pictures and texts happens within the step for all (no loader workers).
The first losses must agree, or exit status 3 says that the systems do not learn the same thing and
the times compare nothing.

Ours runs the rows as packs and trees; the peers run small batches padded to the longest row, with
accumulation. The passes over the rows are told apart where the vision tower is frozen: in the first
our vision cache is empty, in the second full. Peers have no such cache and do the same work twice.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from benchmarks.job import (
    SCENARIOS,
    SHAPES,
    SYSTEMS,
    TINY_SHAPES,
    VARIANTS,
    Job,
    Scenario,
    Variant,
    steps_of,
)
from benchmarks.processes import write_model_apart
from benchmarks.results import (
    LOSS_TOLERANCE,
    NAMES,
    as_json,
    loss_difference,
    result_lines,
    result_table,
)
from benchmarks.rows import draw_steps, write_rows
from benchmarks.turns import SystemResult, measure_jobs

SEED = 0
EXIT_LOSSES_DIFFER = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    console = Console(width=None if sys.stdout.isatty() else 200)
    results: list[SystemResult] = []
    lines = []
    agree = True
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-", dir=options.work_dir) as folder:
        write_model_apart(Path(folder) / "model", is_tiny=options.tiny)
        for scenario in options.scenario or SCENARIOS:
            for variant in options.variant or VARIANTS[:1]:
                jobs = _jobs(Path(folder), scenario, variant, options)
                own = measure_jobs(jobs, compares_rows=not results)
                results += own
                lines += result_lines(own)
                agree &= _report_losses(own, console, is_exact=options.precision == "float32")
                _write_out(options, results, [asdict(line) for line in lines])
    size = "tiny dimensions" if options.tiny else "256M dimensions"
    title = (
        f"{size}, {options.precision}, {options.threads} threads, rounds: {options.rounds}, "
        f"{results[0].device}"
    )
    console.print(result_table(lines, title=title))
    return 0 if agree else EXIT_LOSSES_DIFFER


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=3, help="measured steps of each pass")
    parser.add_argument(
        "--scenario", action="append", choices=SCENARIOS, help="only this one; may be repeated"
    )
    parser.add_argument(
        "--variant",
        action="append",
        choices=VARIANTS,
        help="frozen_tower alone by default; repeatable",
    )
    parser.add_argument(
        "--precision", choices=("float32", "bf16"), default="float32", help="bf16 is autocast"
    )
    parser.add_argument(
        "--threads", type=int, default=2, help="threads of each worker; only one computes at a time"
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="tiny dimensions: checks the comparison, measures nothing",
    )
    parser.add_argument("--out", type=Path, help="write every measured step as JSON")
    parser.add_argument(
        "--work-dir", type=Path, help="where the temporary checkpoint (1 GB) and pictures lie"
    )
    return parser


def _jobs(
    folder: Path, scenario: Scenario, variant: Variant, options: argparse.Namespace
) -> list[Job]:
    shape = (TINY_SHAPES if options.tiny else SHAPES)[scenario]
    num_steps = options.rounds + 2
    rows_file = write_rows(
        folder / scenario,
        num_pictures=num_steps * shape.pictures,
        questions_per_picture=shape.questions_per_picture,
        seed=SEED,
    )
    drawn = draw_steps(num_steps=num_steps, rows_per_step=shape.num_rows, seed=SEED)
    return [
        Job(
            system=system,
            scenario=scenario,
            variant=variant,
            precision=options.precision,
            model_dir=folder / "model",
            rows_file=rows_file,
            work_dir=folder / f"{scenario}-{variant}",
            batch_size=shape.batch_size,
            steps=steps_of(variant, drawn),
            num_threads=options.threads,
        )
        for system in SYSTEMS
    ]


def _report_losses(results: Sequence[SystemResult], console: Console, *, is_exact: bool) -> bool:
    """Print the first losses and say whether they agree; without float32 they need not."""
    job, difference = results[0].job, loss_difference(results)
    losses = ", ".join(f"{NAMES[result.job.system]} {result.first_loss:.6f}" for result in results)
    console.print(
        f"{job.scenario}, {job.variant}: first losses {losses}; largest relative difference "
        f"{difference:.1e}"
    )
    for result in results:
        if (rows := result.conversational) is not None:
            console.print(
                f"TRL on the same rows as conversations (first batch): {rows['num_learned']} "
                "tokens learned, loss "
                f"{rows['loss']:.6f}; without the newline behind <end_of_utterance> "
                f"{rows['num_learned_without_newlines']} tokens, loss "
                f"{rows['loss_without_newlines']:.6f}"
            )
    if is_exact and difference > LOSS_TOLERANCE:
        console.print(f"the systems do not learn the same: more than {LOSS_TOLERANCE:g} apart")
        return False
    return True


def _write_out(
    options: argparse.Namespace, results: Sequence[SystemResult], lines: list[dict]
) -> None:
    if options.out is None:
        return
    content = {
        "precision": options.precision,
        "rounds": options.rounds,
        "threads": options.threads,
        "dimensions": "tiny" if options.tiny else "256M",
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "lines": lines,
        "measured": as_json(results),
    }
    options.out.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
