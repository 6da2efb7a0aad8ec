"""`python -m fuzz`: a corpus of fuzzed inputs, each given to what `smolvlm check` does.

Ends with a table of what was made and accepted, and with every fault by the name of its input. Exit
status 1 where there is a fault. `--input rows:1234` makes one input again.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable

from fuzz.campaign import Outcome, run_campaign
from fuzz.kinds import KINDS
from fuzz.names import parse_kind, parse_name, shared_out
from smolvlm.terminal import say

SAID_EVERY = 5000
"""Inputs between two lines that say how far it is."""


def main() -> int:
    """Run a campaign and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help=f"kinds, separated by commas: {', '.join(KINDS)}")
    parser.add_argument("--input", action="append", type=parse_name, metavar="KIND:NUMBER")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    kinds = [parse_kind(name) for name in options.only.split(",")] if options.only else [*KINDS]
    names = options.input or shared_out(options.inputs, kinds)
    start = time.monotonic()
    outcome = run_campaign(
        names,
        seed=options.seed,
        num_processes=min(options.processes, len(names)),
        report=_progress(len(names)),
    )
    _show(outcome, time.monotonic() - start)
    return 1 if outcome.faults else 0


def _progress(total: int) -> Callable[[int], None]:
    done = [0]

    def report(number: int) -> None:
        done[0] += number
        if done[0] % SAID_EVERY == 0:
            say(f"{done[0]:,} of {total:,}")

    return report


def _show(outcome: Outcome, wall_s: float) -> None:
    for fault in outcome.faults:
        say(f"{fault.name} {fault.kind}: {fault.what}")
    for kind, count in outcome.num_inputs.items():
        say(f"{kind}: {count:,} inputs, {outcome.num_accepted[kind]:,} accepted")
    number = dict.fromkeys(("crash", "hang", "death", "swap"), 0)
    for fault in outcome.faults:
        number[fault.kind] += 1
    say(
        f"{outcome.num_inputs.total():,} inputs in {wall_s:,.0f} s ({outcome.cpu_s:,.0f} s of CPU "
        f"time): {number['crash']} crashes, {number['hang']} hangs, {number['death']} deaths, "
        f"{number['swap']} silent swaps"
    )


if __name__ == "__main__":
    sys.exit(main())
