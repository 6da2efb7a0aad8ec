"""`python -m fuzz`: a corpus of fuzzed inputs, each given to what `smolvlm check` does.

Ends with a table of what was made and accepted, and with every fault by the name of its input. Exit
status 1 where there is a fault. `--input rows:1234` makes one input again.
"""

import argparse
import os
import signal
import sys
import time
from collections import Counter
from random import Random

from fuzz.campaign import Outcome, run_campaign
from fuzz.kinds import KINDS, Kind
from fuzz.names import parse_kind, parse_name, shared_out
from smolvlm.terminal import say

SLICE = 2000
"""Inputs between two lines that say how far it is; what Ctrl-C stops is counted up to the last."""


def main() -> int:
    """Run a campaign and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help=f"kinds, separated by commas: {', '.join(KINDS)}")
    parser.add_argument("--input", action="append", type=parse_name, metavar="KIND:NUMBER")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    kinds: list[Kind] = (
        [parse_kind(name) for name in options.only.split(",")] if options.only else [*KINDS]
    )
    names = options.input or shared_out(options.inputs, kinds)
    Random(options.seed).shuffle(names)  # so that each slice has some of all kinds
    outcome, start = Outcome(), time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so folders go
    try:
        for begin in range(0, len(names), SLICE):
            own = names[begin : begin + SLICE]
            processes = min(options.processes, len(own))
            done = run_campaign(own, seed=options.seed, num_processes=processes)
            outcome.add(done)
            for fault in done.faults:
                say(f"{fault.name} {fault.kind}: {fault.what}")
            say(f"{min(begin + SLICE, len(names)):,} of {len(names):,}")
    except KeyboardInterrupt:
        say("stopped; what was done until then:")
    _show(outcome, time.monotonic() - start)
    return 1 if outcome.faults else 0


def _show(outcome: Outcome, wall_s: float) -> None:
    for kind in sorted(outcome.num_inputs):
        say(f"{kind}: {outcome.num_inputs[kind]:,} inputs, {outcome.num_accepted[kind]:,} accepted")
    number = Counter(fault.kind for fault in outcome.faults)
    say(
        f"{outcome.num_inputs.total():,} inputs in {wall_s:,.0f} s ({outcome.cpu_s:,.0f} s of CPU "
        f"time): {number['crash']} crashes, {number['hang']} hangs, {number['death']} deaths, "
        f"{number['swap']} silent swaps"
    )


if __name__ == "__main__":
    sys.exit(main())
