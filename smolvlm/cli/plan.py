"""`smolvlm plan`: what a run takes, before a weight is read.

Tables on standard error; with `--json` one object on standard output.
"""

from collections.abc import Sequence
from pathlib import Path

from smolvlm.cli.progress import measuring_bar
from smolvlm.cli.train import to_stderr
from smolvlm.config.load import load_run_config
from smolvlm.plan.tables import (
    as_object,
    assumption_lines,
    memory_table,
    parameter_table,
    run_lines,
)
from smolvlm.runs.planning import Place, planner_of
from smolvlm.terminal import console as terminal_console
from smolvlm.terminal import say_json


def show_plan(run_file: Path, overrides: Sequence[str], place: Place, *, as_json: bool) -> None:
    """Plan a run file's run."""
    planner = planner_of(
        load_run_config(run_file, overrides), place, say=to_stderr, measuring_bar=measuring_bar
    )
    plan = planner.plan()
    if as_json:
        say_json(as_object(plan))
    console = terminal_console()
    console.print(parameter_table(plan))
    console.print(memory_table(plan))
    for line in (*run_lines(plan), *assumption_lines(plan)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
