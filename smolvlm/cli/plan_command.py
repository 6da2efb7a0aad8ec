"""The options of `smolvlm plan`; what it does stands in `plan.py`."""

from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.early_checks import check_run_file
from smolvlm.cli.options import Json
from smolvlm.quiet import hide_progress_bars


def plan(
    run_file: Annotated[
        Path | None, typer.Argument(help="The run file (YAML); with --gpus it may be missing.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings over the file's: section.key=value.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="H100, A100-80GB, ...; this machine by default.")
    ] = None,
    calibrate: Annotated[
        bool, typer.Option("--calibrate", help="Measure this machine anew.")
    ] = False,
    watts: Annotated[
        float | None, typer.Option(min=0, help="What a device draws; a named one's by default.")
    ] = None,
    fits: Annotated[
        str | None, typer.Option(help="Propose settings that fit into so much memory: 16GB.")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="Plan for so many devices, over all hosts.")
    ] = None,
    hosts: Annotated[int, typer.Option(min=1, help="Of --gpus: how many hosts share them.")] = 1,
    engine: Annotated[
        str | None, typer.Option(help="Of --gpus: ddp, zero2, fsdp2 or zero3; all by default.")
    ] = None,
    context_ranks: Annotated[
        int | None, typer.Option(min=1, help="Of --gpus: ranks that share each sequence.")
    ] = None,
    size: Annotated[
        str, typer.Option(help="Of --gpus without a run file: 256M, 500M or 2.2B.")
    ] = "2.2B",
    json: Json = False,
) -> None:
    """Say what a run takes before a weight is read: parameters, steps, memory, time, energy."""
    if run_file is None and gpus is None:
        raise typer.BadParameter("give a run file, or --gpus for the published video stage")
    of_many = {"--hosts": hosts > 1, "--engine": engine, "--context-ranks": context_ranks}
    if gpus is None and (named := [name for name, is_given in of_many.items() if is_given]):
        raise typer.BadParameter(f"{' and '.join(named)} need --gpus")
    if fits is not None and gpus is not None:
        raise typer.BadParameter("--fits is of one device, --gpus of many")
    if engine not in (None, "ddp", "zero2", "fsdp2", "zero3"):
        raise typer.BadParameter(f"--engine is ddp, zero2, fsdp2 or zero3, not {engine!r}")
    if size not in ("256M", "500M", "2.2B"):
        raise typer.BadParameter(f"--size is 256M, 500M or 2.2B, not {size!r}")
    if run_file is not None:
        check_run_file(run_file, overrides or [])
    hide_progress_bars()
    from smolvlm.cli import plan as commands

    if run_file is None and device is None:
        device = "H100"
    place = commands.Place(device=device, calibrates=calibrate, watts=watts)
    settings = overrides or []
    if gpus is None and run_file is not None:
        commands.show_plan(run_file, settings, place, fits=fits, as_json=json)
        return
    assert gpus is not None
    options = commands.ClusterOptions(
        num_gpus=gpus, num_hosts=hosts, engine=engine, context_ranks=context_ranks
    )
    commands.show_cluster(run_file, settings, place, options, size=size, as_json=json)
