"""`smolvlm launch` on this machine: the world that was asked for, restarts, statuses, signals."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from smolvlm.build.tiny import tiny_model
from smolvlm.cli.main import app
from smolvlm.errors import ConfigError
from smolvlm.launch.local import LocalLaunch
from smolvlm.train.arguments import check_world
from tests.processes import children_of, is_alive, wait_until

TIMEOUT_S = 400
CHECKPOINT, DIES_IN_STEP, NUM_STEPS, NUM_RESTARTS = 2, 4, 6, 10
KILLER = """
import os, runpy, signal, sys
from pathlib import Path
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer
mark, how = Path(os.environ["MARK"]), os.environ["HOW"]
steps = {int(step) for step in os.environ["STEP"].split()}
step_of = SmolVLMTrainer.training_step
def training_step(self, *args, **kwargs):
    loss, step = step_of(self, *args, **kwargs), self.state.global_step + 1
    done = mark.read_text().split() if mark.exists() else []
    if self.args.process_index == 1 and step in steps and str(step) not in done:
        mark.write_text(" ".join([*done, str(step)]))
        os.kill(os.getpid(), getattr(signal, how))
    return loss
SmolVLMTrainer.training_step = training_step
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "tiny", hidden_size=32)


def write_run(folder: Path, model: Path, **train: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"{n} and {n % 3}?", "answer": f"It is {n + n % 3}."} for n in range(24)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model": {"path": str(model)},
        "data": {"mixture": [{"json_path": "rows.jsonl"}], "max_tokens_per_pack": 64},
        "train": {
            "output_dir": str(folder / "out"),
            "language_model_lr": 1e-3,
            "packs_per_step": 2,
            "max_steps": NUM_STEPS,
            "logging_steps": 1,
            "save_steps": CHECKPOINT,
            **train,
        },
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return folder / "run.yaml"


def launched(
    run_file: Path,
    *arguments: str,
    environment: dict[str, str] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> subprocess.CompletedProcess[str]:
    """Run the command; a `sitecustomize` beside the run file, if there is one, is read by ranks."""
    paths = [str(run_file.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "smolvlm", "launch", str(run_file), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of two ranks that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    result = launched(write_run(folder, model), "--nproc", "2")
    assert result.returncode == 0, result.stderr
    assert " on 2 ranks (ddp)" in result.stderr
    return folder / "out"


def test_a_killed_rank_comes_back_and_the_run_is_the_one_that_nothing_happened_to(
    whole: Path, model: Path, tmp_path: Path
) -> None:
    run_file = write_run(tmp_path, model)
    only_ranks = f"import sys\nif 'train' in sys.orig_argv:\n    exec({KILLER!r})\n"
    (tmp_path / "sitecustomize.py").write_text(only_ranks)
    result = launched(
        run_file,
        "--nproc",
        "2",
        environment={"MARK": str(tmp_path / "mark"), "STEP": str(DIES_IN_STEP), "HOW": "SIGKILL"},
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mark").exists()
    assert "note: rank 1 was killed by SIGKILL; all 2 ranks begin again (1 of 3)" in result.stderr
    assert f"resuming from {tmp_path / 'out' / f'checkpoint-{CHECKPOINT}'}" in result.stderr
    assert losses(tmp_path / "out") == losses(whole)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", whole))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


@pytest.mark.grid
def test_ten_of_ten_restarts_work(model: Path, tmp_path: Path) -> None:
    """A rendezvous that keeps a dead attempt's addresses fails in some of them."""
    deaths = [str(3 + 2 * restart) for restart in range(NUM_RESTARTS)]
    settings = {"max_steps": int(deaths[-1]) + 1}
    whole, killed = (
        write_run(tmp_path, model, **settings),
        write_run(tmp_path / "killed", model, **settings),
    )
    assert launched(whole, "--nproc", "2").returncode == 0
    only_ranks = f"import sys\nif 'train' in sys.orig_argv:\n    exec({KILLER!r})\n"
    (killed.parent / "sitecustomize.py").write_text(only_ranks)
    mark = {"MARK": str(tmp_path / "mark"), "STEP": " ".join(deaths), "HOW": "SIGKILL"}
    restarts = ("--max-restarts", str(NUM_RESTARTS))
    limit = NUM_RESTARTS * TIMEOUT_S / 4
    result = launched(killed, "--nproc", "2", *restarts, environment=mark, timeout_s=limit)
    assert result.returncode == 0, result.stderr
    assert f"all 2 ranks begin again ({NUM_RESTARTS} of {NUM_RESTARTS})" in result.stderr
    assert (tmp_path / "mark").read_text().split() == deaths
    assert losses(killed.parent / "out") == losses(whole.parent / "out")


def test_a_rank_that_stands_still_ends_the_job_which_begins_again(
    whole: Path, model: Path, tmp_path: Path
) -> None:
    """Stopped, not killed: nothing in that process can say anything any more."""
    run_file = write_run(tmp_path, model, step_timeout_s=15)
    only_ranks = f"import sys\nif 'train' in sys.orig_argv:\n    exec({KILLER!r})\n"
    (tmp_path / "sitecustomize.py").write_text(only_ranks)
    mark = {"MARK": str(tmp_path / "mark"), "STEP": str(DIES_IN_STEP), "HOW": "SIGSTOP"}
    result = launched(run_file, "--nproc", "2", environment=mark)
    assert result.returncode == 0, result.stderr
    assert "error: rank 0 stood still in step" in result.stderr
    assert "(train.step_timeout_s), over these rows:" in result.stderr
    assert f"\nit waits for rank 1 (step {DIES_IN_STEP}, updating weights)" in result.stderr
    assert "all 2 ranks begin again (1 of 3)" in result.stderr
    assert losses(tmp_path / "out") == losses(whole)


def test_a_mistake_is_said_once_and_nothing_starts(model: Path, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, model)
    result = launched(run_file, "train.packs_per_stepp=2", "--nproc", "2")
    assert result.returncode == 1
    assert result.stderr.count("packs_per_stepp") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("job", [[], ["--slurm", "--no-submit"], ["--sky", "--cpu"]])
def test_ranks_that_cannot_share_a_step_are_refused_before_anything_starts(
    model: Path, tmp_path: Path, job: list[str]
) -> None:
    run_file = write_run(tmp_path, model, packs_per_step=3)
    result = CliRunner().invoke(app, ["launch", str(run_file), "--nproc", "2", *job])
    assert isinstance(result.exception, ConfigError)
    assert "packs_per_step=3 cannot be dealt to 2 ranks" in str(result.exception)


def test_an_error_of_a_rank_is_not_tried_again(model: Path, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, model)
    (tmp_path / "rows.jsonl").write_text("")
    result = launched(run_file, "--nproc", "2")
    assert result.returncode == 1
    assert "rows.jsonl" in result.stderr
    assert "begin again" not in result.stderr
    assert "torch/distributed" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_world_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "SMOLVLM_RANKS"):
        with monkeypatch.context() as environment:
            environment.setenv(name, "2")
            with pytest.raises(ConfigError, match=f"{name} is 2, and this process knows of no oth"):
                check_world(1)
            check_world(2)
            with pytest.raises(ConfigError, match=f"{name} is 2, and this process knows of 4 in"):
                check_world(4)


def test_a_signal_ends_all_ranks(model: Path, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, model, max_steps=2000)
    process = subprocess.Popen(
        [sys.executable, "-m", "smolvlm", "launch", str(run_file), "--nproc", "2"],
        stderr=subprocess.PIPE,
        text=True,
    )
    metrics = tmp_path / "out" / "metrics.jsonl"
    wait_until(metrics.is_file, lambda: "the ranks did not begin")
    ranks = children_of(process.pid)
    assert len(ranks) >= 2
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "the ranks were ended by SIGTERM" in said
    assert said.count("to go on") == 1
    assert "goes on" not in said
    assert "torch/distributed" not in said
    wait_until(lambda: not any(map(is_alive, ranks)), lambda: "ranks outlived the launcher")


def test_the_ranks_of_a_killed_launcher_end(model: Path, tmp_path: Path) -> None:
    run_file = write_run(tmp_path, model, max_steps=2000)
    process = subprocess.Popen(
        [sys.executable, "-m", "smolvlm", "launch", str(run_file), "--nproc", "2"],
        stderr=subprocess.DEVNULL,
    )
    wait_until((tmp_path / "out" / "metrics.jsonl").is_file, lambda: "the ranks did not begin")
    ranks = children_of(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_alive, ranks)), lambda: "ranks outlived the launcher")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nodes", "2"], "--nodes need --slurm or --sky"),
        (["--no-submit", "--cpu"], "--cpu and --no-submit need --slurm or --sky"),
        (["--slurm", "--sky"], "two schedulers"),
        (["--nproc", "0"], "should be greater than or equal to 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    model: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    result = CliRunner().invoke(app, ["launch", str(write_run(tmp_path, model)), *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


def test_a_script_is_written_and_without_sbatch_that_is_said(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_file, script = write_run(tmp_path, model), tmp_path / "job.sbatch"
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments = ["launch", str(run_file), "--nproc", "2", "--slurm", "--out", str(script)]
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, ConfigError)
    assert "there is no sbatch on this machine" in str(result.exception)
    assert f"train {run_file}" in script.read_text()
    assert CliRunner().invoke(app, [*arguments, "--no-submit"]).exit_code == 0


def test_a_rank_command_keeps_a_device_that_was_chosen() -> None:
    settings = LocalLaunch(run_file=Path("a.yaml"), overrides=["train.use_cpu=false"], num_ranks=2)
    assert [word for word in settings.command if "use_cpu" in word] == ["train.use_cpu=false"]
