"""Files for a scheduler: what they ask for, and that a shell and YAML read them."""

import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from smolvlm.errors import ConfigError
from smolvlm.launch.job_files import Job, sbatch_script, sky_task

JOB = Job(
    run_file=Path("/data/my runs/run.yaml"),
    overrides=["train.seed=3", "data.mixture=a b.yaml"],
    num_nodes=4,
    num_ranks=8,
    accelerator="H100",
    time_limit="12:00:00",
)


def test_the_sbatch_script_asks_for_what_was_asked() -> None:
    lines = sbatch_script(JOB, python="/opt/env/bin/python").splitlines()
    options = dict(line.removeprefix("#SBATCH --").partition("=")[::2] for line in lines[1:10])
    assert options | {"job-name": ""} == {
        "job-name": "",
        "nodes": "4",
        "ntasks-per-node": "1",
        "gpus-per-node": "8",
        "time": "12:00:00",
        "requeue": "",
        "open-mode": "append",
        "signal": "B:USR1@120",
        "output": "%x-%j.log",
    }


def test_its_command_is_torchrun_with_the_run(tmp_path: Path) -> None:
    """Run by a shell whose `srun` prints what it is given."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    (bin_dir / "srun").write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    (bin_dir / "scontrol").write_text('#!/bin/bash\nprintf "n1\\nn2\\n"\n')
    for path in bin_dir.iterdir():
        path.chmod(0o755)
    (tmp_path / "job.sbatch").write_text(sbatch_script(JOB, python="/opt/env/bin/python"))
    environment = {
        "PATH": f"{bin_dir}:/usr/bin:/bin",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NUM_NODES": "4",
    }
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, str(tmp_path / "job.sbatch")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.splitlines()
    assert words[:5] == [
        "--kill-on-bad-exit=0",
        "--wait=120",
        "/opt/env/bin/python",
        "-m",
        "torch.distributed.run",
    ]
    assert words[words.index("--nnodes") + 1] == "4"
    assert words[words.index("--nproc-per-node") + 1] == "8"
    assert words[words.index("--rdzv-endpoint") + 1] == "n1:20077"
    assert words[-5:] == [
        "smolvlm",
        "train",
        "/data/my runs/run.yaml",
        "train.seed=3",
        "data.mixture=a b.yaml",
    ]


def test_without_gpus_the_ranks_train_on_the_cpu() -> None:
    script = sbatch_script(replace(JOB, has_gpus=False), python="python")
    assert "gpus-per-node" not in script
    assert "train.use_cpu=true" in script


def test_the_sky_task_is_yaml_with_the_run() -> None:
    task = yaml.safe_load(sky_task(JOB))
    assert task["num_nodes"] == 4
    assert task["resources"]["accelerators"] == "H100:8"
    words = shlex.split(task["run"].replace("\\\n", " "))
    assert words[-5:] == [
        "smolvlm",
        "train",
        "/data/my runs/run.yaml",
        "train.seed=3",
        "data.mixture=a b.yaml",
    ]


def test_sky_needs_a_kind_of_gpu() -> None:
    with pytest.raises(ConfigError, match="--gpu-type H100"):
        sky_task(replace(JOB, accelerator=None))
