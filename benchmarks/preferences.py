"""`python -m benchmarks.preferences`: a DPO step of ours beside one of TRL's `DPOTrainer`, on the
same pairs.

Two models with the same random weights at the 256M model's dimensions, one picture of one 512-px
tile a pair, vision tower frozen, float32, the same optimizer. Steps are taken in turns in one
process. Ours pays for everything that an epoch costs: the reference pass over the step's pairs,
which fills the vision cache, and then the step itself; TRL runs its own loss with a second model as
the reference, from its own collator. Reading pictures is within the step for both. The losses of
every step must agree, or exit status 3 says that the times compare nothing. With `--epochs 2` the
same pairs come again: ours then reads reference and features back, TRL computes them anew, as both
do in a run.

With `--adapters` both train the same LoRA matrices (rank 8, all projections of the language model)
and nothing else; TRL's reference is then its model with the adapters switched off.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.model_files import write_model
from benchmarks.pair_steps import PairSettings, Step, our_step, trl_step
from benchmarks.rows import Row, read_rows, write_rows

PAIRS_A_STEP = 4
LOSS_TOLERANCE = 1e-4
EXIT_LOSSES_DIFFER = 3
Times = Mapping[str, tuple[float, float]]
"""Seconds and CPU seconds of a step, by system."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preferences", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--rounds", type=int, default=3, help="measured steps of each system, after one to warm up"
    )
    parser.add_argument("--epochs", type=int, default=1, help="how often the same pairs come")
    parser.add_argument(
        "--adapters",
        action="store_true",
        help="LoRA on the language model instead of all its weights",
    )
    parser.add_argument(
        "--tiny",
        action="store_true",
        help="tiny dimensions: checks the comparison, measures nothing",
    )
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-") as folder:
        return _compare(Path(folder), options)


def _compare(folder: Path, options: argparse.Namespace) -> int:
    write_model(folder / "model", is_tiny=options.tiny)
    num_rows = (options.rounds + 1) * PAIRS_A_STEP
    rows = read_rows(
        write_rows(folder / "rows", num_pictures=num_rows, questions_per_picture=1, seed=0)
    )
    model_dir, settings = folder / "model", PairSettings(has_adapters=options.adapters)
    steps = {
        "smolvlm": our_step(model_dir, folder, rows, settings=settings),
        "TRL": trl_step(model_dir, folder, settings=settings),
    }
    agree, all_measured = True, list[list[Times]]()
    for epoch in range(1, options.epochs + 1):
        turns = [rows[at : at + PAIRS_A_STEP] for at in range(0, num_rows, PAIRS_A_STEP)]
        times = [_in_turns(steps, own, number=number) for number, own in enumerate(turns)]
        agree &= all(difference <= LOSS_TOLERANCE for difference, _ in times)
        measured = [
            own for _, own in times[1:]
        ]  # the first is for warming up; left out of every epoch alike
        print("\n".join(_told(measured, title=f"epoch {epoch}, medians of {len(measured)} steps")))
        all_measured.append(measured)
    if options.epochs > 1:
        together = [_sum(of_step) for of_step in zip(*all_measured, strict=True)]
        print(
            "\n".join(
                _told(
                    together, title=f"all {options.epochs} epochs together, the same pairs in each"
                )
            )
        )
    return 0 if agree else EXIT_LOSSES_DIFFER


def _in_turns(steps: Mapping[str, Step], own: Sequence[Row], *, number: int) -> tuple[float, Times]:
    """Let every system learn from the same rows; return by how much their losses differ, and what
    they took."""
    losses, times = {}, {}
    for name in steps if number % 2 else reversed(list(steps)):
        began, cpu_began = time.perf_counter(), time.process_time()
        losses[name] = steps[name](own)
        times[name] = time.perf_counter() - began, time.process_time() - cpu_began
    told = ", ".join(f"{name} {loss:.6f}" for name, loss in losses.items())
    print(f"step {number}: losses {told}", file=sys.stderr, flush=True)
    return abs(losses["smolvlm"] - losses["TRL"]), times


def _sum(times: Sequence[Times]) -> Times:
    return {
        name: (sum(own[name][0] for own in times), sum(own[name][1] for own in times))
        for name in times[0]
    }


def _told(times: Sequence[Times], *, title: str) -> list[str]:
    lines = [title]
    for name in times[0]:
        lines.append(
            f"{name}: {PAIRS_A_STEP / statistics.median(own[name][0] for own in times):.3f} pairs/s"
        )
    for number, kind in enumerate(("", " in CPU time")):
        ratios = [own["TRL"][number] / own["smolvlm"][number] for own in times]
        spread = f"paired steps {min(ratios):.2f} to {max(ratios):.2f}"
        lines.append(f"smolvlm is {statistics.median(ratios):.2f}x as fast{kind} ({spread})")
    return lines


if __name__ == "__main__":
    sys.exit(main())
