"""`smolvlm plan`: what a run takes, before a weight is read.

Tables on standard error; with `--json` one object on standard output.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.console import Console

from smolvlm.build.configs import PublishedSize
from smolvlm.cli.progress import measuring_bar
from smolvlm.cli.train import to_stderr
from smolvlm.config.load import dump_run_config, load_run_config
from smolvlm.config.schema import RunConfig
from smolvlm.disk.atomic_files import write_text
from smolvlm.plan.fits import Proposal, bytes_of, proposals
from smolvlm.plan.layouts import plan_layouts
from smolvlm.plan.many_devices import Cluster, Engine, links_of
from smolvlm.plan.run_plan import RunPlan
from smolvlm.plan.tables import (
    as_object,
    assumption_lines,
    cluster_lines,
    cluster_object,
    cluster_table,
    left_out_lines,
    memory_table,
    model_line,
    parameter_table,
    proposal_table,
    run_lines,
)
from smolvlm.report.planned import PLAN_FILE
from smolvlm.runs.planning import Place, plan_video_stage, planner_of
from smolvlm.terminal import console as terminal_console
from smolvlm.terminal import say_json

NOTHING_FITS = 1


def show_plan(
    run_file: Path, overrides: Sequence[str], place: Place, *, fits: str | None, as_json: bool
) -> None:
    """Plan a run file's run, and propose settings that fit; exit status 1 where none do.

    Args:
        run_file: the run's.
        overrides: of it.
        place: where it is to run.
        fits: a size of memory, as text; None asks for no proposals.
        as_json: print one object on standard output.
    """
    limit_bytes = None if fits is None else bytes_of(fits)
    planner = planner_of(
        load_run_config(run_file, overrides), place, say=to_stderr, measuring_bar=measuring_bar
    )
    plan = planner.plan()
    _keep(plan, planner.config)
    found: list[Proposal] = []
    if limit_bytes is not None:
        found = proposals(
            planner.config,
            planner.planned.measured.lengths,
            limit_bytes=limit_bytes,
            reload=lambda more: load_run_config(run_file, [*overrides, *more]),
            plan_with=lambda config: planner.plan(config, compares=False),
        )
    if as_json:
        fitting = [{"overrides": [*one.overrides], **as_object(one.plan)} for one in found]
        say_json(as_object(plan) | ({} if fits is None else {"fits": fitting}))
    console = terminal_console()
    _show_lines((model_line(plan),), console)
    console.print(parameter_table(plan))
    console.print(memory_table(plan))
    _show_lines((*run_lines(plan), *assumption_lines(plan)), console)
    if fits is not None:
        _show_proposals(found, console, fits=fits)


def _show_lines(lines: Iterable[str], console: Console) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _keep(plan: RunPlan, config: RunConfig) -> None:
    """Leave the plan in the run's folder, for its report to compare with what it took."""
    folder = Path(config.train.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    content = as_object(plan) | {"settings": dump_run_config(config)}
    write_text(folder / PLAN_FILE, json.dumps(content, indent=1))


def _show_proposals(found: Sequence[Proposal], console: Console, *, fits: str) -> None:
    if not found:
        console.print(f"nothing that was tried fits into {fits}", markup=False)
        raise typer.Exit(NOTHING_FITS)
    console.print(f"\nwhat fits into {fits}, the fastest first:", markup=False, highlight=False)
    console.print(proposal_table(found))
    for number, proposal in enumerate(found, start=1):
        settings = " ".join(proposal.overrides) or "the run file as it is"
        console.print(f"{number}  {settings}", markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterOptions:
    """What the command line says of many devices."""

    num_gpus: int
    num_hosts: int
    engine: Engine | None = None
    """None is each of them."""
    context_ranks: int | None = None
    """None is each number up to 8 that divides the devices of a host."""


def show_cluster(
    run_file: Path | None,
    overrides: Sequence[str],
    place: Place,
    options: ClusterOptions,
    *,
    size: PublishedSize,
    as_json: bool,
) -> None:
    """Plan a run on many devices: a run file's, or without one the published video stage.

    Args:
        run_file: the run's; None is the video stage.
        overrides: of it.
        place: which devices.
        options: how many, and how they share the work.
        size: of the model of the video stage.
        as_json: print one object a line on standard output.
    """
    if run_file is None:
        plan = plan_video_stage(size, place, say=to_stderr)
    else:
        config = load_run_config(run_file, overrides)
        plan = planner_of(config, place, say=to_stderr, measuring_bar=measuring_bar).plan(
            compares=False
        )
    cluster = Cluster(
        num_ranks=options.num_gpus, num_hosts=options.num_hosts, links=links_of(plan.device)
    )
    found = plan_layouts(plan, cluster, engine=options.engine, context_ranks=options.context_ranks)
    if as_json:
        for one in found.plans:
            say_json(cluster_object(one, plan, cluster))
    console = terminal_console()
    name = "the published video stage" if run_file is None else str(run_file)
    _show_lines((f"{'run':<9}{name}", model_line(plan), *cluster_lines(plan, cluster)), console)
    console.print(cluster_table(found.plans))
    _show_lines((*left_out_lines(found.left_out), *assumption_lines(plan)), console)
