"""A run on a real SLURM of two nodes: submitted, preempted, queued again, and the run of one rank.

`make engines` runs it: the daemons take root and some minutes.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from smolvlm.build.tiny import tiny_model
from tests.launch.slurm_cluster import Cluster, NoSlurmError, slurm, unpacked
from tests.launch.test_local import write_run

RUN_S = 300
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cluster(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Cluster]:
    if not pytestconfig.getoption("--engines"):
        pytest.skip("some minutes: `make engines` (--engines) runs it")
    try:
        programs = unpacked(tmp_path_factory.mktemp("slurm-programs"))
    except NoSlurmError as reason:
        pytest.skip(str(reason))
    with slurm(programs, tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", hidden_size=32)


@pytest.fixture(scope="module")
def alone(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of one rank."""
    run_file = write_run(tmp_path_factory.mktemp("alone"), model)
    smolvlm("train", run_file, "train.use_cpu=true", environment=dict(os.environ))
    return run_file.parent / "out"


def smolvlm(*arguments: object, environment: dict[str, str]) -> str:
    folder = Path(str(arguments[1])).parent  # of the run file; a `sitecustomize` there is read
    done = subprocess.run(
        [sys.executable, "-m", "smolvlm", *map(str, arguments)],
        env=environment | {"PYTHONPATH": f"{folder}:{ROOT}", "GLOO_SOCKET_IFNAME": "lo"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def submitted(cluster: Cluster, run_file: Path, *overrides: str) -> str:
    """Submit a run on two nodes, and return its job's number."""
    environment = {**cluster.environment, "MASTER_ADDR": "127.0.0.1"}
    options = ("--slurm", "--nodes", "2", "--nproc", "1", "--cpu")
    said = smolvlm("launch", run_file, *overrides, *options, environment=environment)
    return said.split("Submitted batch job ")[1].split()[0]


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [(row["step"], row["loss"]) for row in map(json.loads, lines) if "loss" in row]


def assert_the_same_run(ours: Path, theirs: Path) -> None:
    steps, values = zip(*losses(ours), strict=True)
    expected_steps, expected = zip(*losses(theirs), strict=True)
    assert steps == expected_steps
    assert values == pytest.approx(expected, rel=1e-6)
    weights = load_file(ours / "model.safetensors")
    for name, value in load_file(theirs / "model.safetensors").items():
        assert float((weights[name] - value).norm()) <= 1e-5 * float(value.norm()), name


def log_of(cluster: Cluster, job: str) -> Path:
    return Path(cluster.details(job)["StdOut"])


def test_two_nodes_train_as_one_rank(
    cluster: Cluster, model: Path, alone: Path, tmp_path: Path
) -> None:
    job = submitted(cluster, write_run(tmp_path, model))
    state = cluster.wait_for(job, ("COMPLETED", "FAILED", "TIMEOUT", "NODE_FAIL"), limit_s=RUN_S)
    log = log_of(cluster, job).read_text()
    assert state == "COMPLETED", log
    assert " on 2 ranks (ddp)" in log
    assert_the_same_run(tmp_path / "out", alone)


def test_a_job_that_is_preempted_is_queued_again_and_resumes(
    cluster: Cluster, model: Path, alone: Path, tmp_path: Path
) -> None:
    slow = {"save_steps": 1}
    run_file = write_run(tmp_path, model, **slow)
    # A step of a second, so that the signal comes in the middle of the run.
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    job = submitted(cluster, run_file)
    marker = tmp_path / "out" / "checkpoint-2" / "smolvlm.json"
    wait_until(marker.is_file, cluster, job)
    cluster.ask("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: cluster.details(job)["Restarts"] == "1", cluster, job)
    cluster.wait_for(job, ("PENDING",), limit_s=RUN_S)
    first = log_of(cluster, job).read_text()
    assert "stopped by SIGTERM" in first
    assert "kept: " in first
    assert not (tmp_path / "out" / "model.safetensors").exists()
    cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # SLURM waits for 2 minutes
    state = cluster.wait_for(job, ("COMPLETED", "FAILED"), limit_s=RUN_S)
    log = log_of(cluster, job).read_text()
    assert state == "COMPLETED", f"{cluster.details(job)}\n{log}\n{cluster.logs()}"
    assert f"resuming from {tmp_path / 'out'}/checkpoint-" in log.removeprefix(first)
    assert_the_same_run(tmp_path / "out", alone)


SLOW = """
import sys
if "train" in sys.orig_argv:
    import time
    from smolvlm.train.smolvlm_trainer import SmolVLMTrainer
    step_of = SmolVLMTrainer.training_step
    def training_step(self, *args, **kwargs):
        time.sleep(1)
        return step_of(self, *args, **kwargs)
    SmolVLMTrainer.training_step = training_step
"""


def wait_until(holds: Any, cluster: Cluster, job: str) -> None:
    end = time.monotonic() + RUN_S
    while not holds():
        assert time.monotonic() < end, log_of(cluster, job).read_text() + cluster.logs()
        time.sleep(0.2)
