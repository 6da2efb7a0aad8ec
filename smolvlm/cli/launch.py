"""`smolvlm launch`: a run on several processes, here or as a cluster's job."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch.distributed.elastic.multiprocessing.api import SignalException

from smolvlm.disk.atomic_files import write_text
from smolvlm.errors import ConfigError
from smolvlm.launch.job_files import Job, sbatch_script, sky_task
from smolvlm.launch.local import LocalLaunch, launch
from smolvlm.terminal import say

_SIGNAL_STATUS = 128


def launch_here(
    run_file: Path, overrides: Sequence[str], *, num_ranks: int, max_restarts: int
) -> None:
    """Run all ranks on this machine, and exit with their status."""
    settings = LocalLaunch(
        run_file=run_file, overrides=overrides, num_ranks=num_ranks, max_restarts=max_restarts
    )
    try:
        status = launch(settings)
    except SignalException as stopped:  # torch's agent answers signals, and ends the ranks
        say(f"the ranks were ended by {stopped.sigval.name}")  # the first says how to go on
        status = _SIGNAL_STATUS + stopped.sigval
    if status:
        sys.exit(status)


def submit_to_slurm(job: Job, out: Path | None, *, only_writes: bool) -> None:
    """Write an sbatch script and submit it.

    Raises:
        ConfigError: there is no `sbatch` here, or it refuses.
    """
    file = out or Path(f"{job.name}.sbatch")
    write_text(file, sbatch_script(job, python=sys.executable))
    say(f"wrote {file}")
    if only_writes:
        return
    if shutil.which("sbatch") is None:
        raise ConfigError(
            "there is no sbatch on this machine",
            where="--slurm",
            fix=f"submit {file} where there is one, or write it alone with --no-submit",
        )
    answer = subprocess.run(["sbatch", str(file)], capture_output=True, text=True, check=False)
    if answer.returncode:
        reason = " ".join(answer.stderr.split())
        raise ConfigError(f"sbatch refuses: {reason}", where=str(file), fix="mend the script")
    say(answer.stdout.strip())


def write_sky_task(job: Job, out: Path | None) -> None:
    """Write a SkyPilot task, and say how it is started.

    Raises:
        ConfigError: the run file is outside the current folder, which SkyPilot sends along.
    """
    if not job.run_file.is_relative_to(Path.cwd()):
        raise ConfigError(
            "it is outside the current folder, which is all that SkyPilot sends along",
            where=str(job.run_file),
            fix="go to a folder that holds the run file and all that it names",
        )
    file = out or Path(f"{job.name}.sky.yaml")
    inside = replace(job, run_file=job.run_file.relative_to(Path.cwd()))
    write_text(file, sky_task(inside))
    say(
        f"wrote {file}; start it with: sky launch {file}\n"
        "note: this folder is sent along; what the run names outside of it is not. `setup` "
        "installs smolvlm from the package index: change it for a checkout"
    )
