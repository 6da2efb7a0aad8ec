"""Files that a cluster's scheduler starts a run from: an sbatch script, a SkyPilot task.

In: the run, and the machines asked for. Out: text. Both hold one line of torchrun; nothing of them
is needed where a scheduler starts torchrun in another way.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from smolvlm.errors import ConfigError

PREEMPTION_S = 120
"""How long before a job's end, or its preemption, it is told: to end in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A run on several machines."""

    run_file: Path
    overrides: Sequence[str]
    """`section.key=value`."""
    num_nodes: int
    num_ranks: int
    """On each."""
    has_gpus: bool = True
    accelerator: str | None = None
    """As SkyPilot calls it: `H100`, `A100-80GB`."""
    time_limit: str | None = None
    """As SLURM writes it: `12:00:00`."""

    @property
    def name(self) -> str:
        return f"smolvlm-{self.run_file.stem}"

    @property
    def training(self) -> str:
        """The command of a rank, behind torchrun's own options."""
        more = [] if self.has_gpus else ["train.use_cpu=true"]
        return shlex.join(["-m", "smolvlm", "train", str(self.run_file), *self.overrides, *more])


def sbatch_script(job: Job, *, python: str) -> str:
    """Return a script for `sbatch`: one task a node, torchrun in it.

    A job that is to be preempted, or whose time ends, gets SIGUSR1 so many seconds before; it ends
    the ranks and is queued again. There the run resumes from its newest whole checkpoint.

    Args:
        job: what runs.
        python: the interpreter, as the nodes see it.
    """
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name={job.name}",
        f"#SBATCH --nodes={job.num_nodes}",
        "#SBATCH --ntasks-per-node=1",
        *([f"#SBATCH --gpus-per-node={job.num_ranks}"] if job.has_gpus else []),
        *([f"#SBATCH --time={job.time_limit}"] if job.time_limit else []),
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --signal=B:USR1@{PREEMPTION_S}",
        "#SBATCH --output=%x-%j.log",
        "set -uo pipefail",
        "",
        "# The first node of the job; set MASTER_ADDR where its name leads nowhere.",
        'FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)',
        'export MASTER_ADDR="${MASTER_ADDR:-$FIRST}"',
        'PORT="${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}"',
        "export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1",
        f"export SMOLVLM_RANKS={job.num_nodes * job.num_ranks}",
        "",
        # A node that ends leaves the others so many seconds: to save, or to say what they keep.
        f"srun --kill-on-bad-exit=0 --wait={PREEMPTION_S} \\",
        f"  {shlex.quote(python)} -m torch.distributed.run \\",
        f'  --nnodes "$SLURM_JOB_NUM_NODES" --nproc-per-node {job.num_ranks} \\',
        '  --rdzv-id "$SLURM_JOB_ID-${SLURM_RESTART_COUNT:-0}" --rdzv-backend c10d \\',
        '  --rdzv-endpoint "$MASTER_ADDR:$PORT" \\',
        f"  {job.training} &",
        "STEP=$!",
        "",
        "# Before the end of its time, or when another job takes the nodes: end, and queue again.",
        "stop() {",
        '  scancel --signal=TERM "$SLURM_JOB_ID"  # its step alone; srun itself would kill it',
        '  wait "$STEP"',
        '  scontrol requeue "$SLURM_JOB_ID"',
        "  exit 0",
        "}",
        "trap stop USR1",
        'wait "$STEP"',
    ]
    return "\n".join(lines) + "\n"


def sky_task(job: Job) -> str:
    """Return a task for `sky launch`, as YAML.

    Raises:
        ConfigError: no accelerator is named.
    """
    if job.has_gpus and job.accelerator is None:
        raise ConfigError(
            "SkyPilot asks for the kind of GPU", where="--sky", fix="name it: --gpu-type H100"
        )
    resources: dict[str, object] = {"use_spot": False}
    if job.accelerator is not None:
        resources["accelerators"] = f"{job.accelerator}:{job.num_ranks}"
    command = (
        f"SMOLVLM_RANKS={job.num_nodes * job.num_ranks} TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 "
        "python -m torch.distributed.run \\\n"
        f'  --nnodes "$SKYPILOT_NUM_NODES" --nproc-per-node {job.num_ranks} \\\n'
        '  --node-rank "$SKYPILOT_NODE_RANK" --master-port 29400 \\\n'
        '  --master-addr "$(echo "$SKYPILOT_NODE_IPS" | head -n 1)" \\\n'
        f"  {job.training}\n"
    )
    task = {
        "name": job.name,
        "num_nodes": job.num_nodes,
        "resources": resources,
        "workdir": ".",
        "setup": "pip install smolvlm\n",
        "run": command,
    }
    return yaml.dump(task, sort_keys=False, default_flow_style=False, width=100)
