"""The options of `smolvlm launch`; what it does stands in `launch.py`."""

from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.early_checks import check_ranks, check_run_file
from smolvlm.cli.output_files import check_output_file
from smolvlm.quiet import hide_progress_bars


def launch(
    run_file: Annotated[Path, typer.Argument(help="The run file (YAML).")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings over the file's: section.key=value.")
    ] = None,
    nproc: Annotated[int, typer.Option(min=1, help="Processes on each machine, one a GPU.")] = 1,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="How often all begin again after one was killed.")
    ] = 3,
    slurm: Annotated[
        bool, typer.Option("--slurm", help="Write an sbatch script and submit it.")
    ] = False,
    sky: Annotated[bool, typer.Option("--sky", help="Write a SkyPilot task.")] = False,
    nodes: Annotated[int, typer.Option(min=1, help="Machines, of --slurm and --sky.")] = 1,
    time: Annotated[
        str | None, typer.Option(help="Of --slurm: the job's time, as 12:00:00.")
    ] = None,
    gpu_type: Annotated[str | None, typer.Option(help="Of --sky: H100, A100-80GB, ...")] = None,
    cpu: Annotated[
        bool, typer.Option("--cpu", help="Of --slurm and --sky: machines without GPUs.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Of --slurm and --sky: the file to write.")
    ] = None,
    no_submit: Annotated[
        bool, typer.Option("--no-submit", help="Of --slurm: write the script alone.")
    ] = False,
) -> None:
    """Train on several processes: here, or as a job of a cluster."""
    if slurm and sky:
        raise typer.BadParameter("--slurm and --sky are two schedulers")
    of_jobs = {"--nodes": nodes > 1, "--time": time, "--gpu-type": gpu_type, "--cpu": cpu}
    of_jobs |= {"--out": out, "--no-submit": no_submit}
    named = [name for name, value in of_jobs.items() if value]
    if named and not (slurm or sky):
        raise typer.BadParameter(f"{' and '.join(named)} need --slurm or --sky")
    check_output_file(out, "--out")
    check_run_file(run_file, overrides or [])
    check_ranks(run_file, overrides or [], num_ranks=nproc * nodes)
    hide_progress_bars()
    from smolvlm.cli import launch as commands

    if not (slurm or sky):
        commands.launch_here(run_file, overrides or [], num_ranks=nproc, max_restarts=max_restarts)
        return
    job = commands.Job(
        run_file=run_file.absolute(),
        overrides=overrides or [],
        num_nodes=nodes,
        num_ranks=nproc,
        has_gpus=not cpu,
        accelerator=gpu_type,
        time_limit=time,
    )
    if slurm:
        commands.submit_to_slurm(job, out, only_writes=no_submit)
    else:
        commands.write_sky_task(job, out)
