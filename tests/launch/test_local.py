"""`smolvlm launch` on this machine: the world that was asked for, restarts, statuses, signals."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from smolvlm.build.tiny import tiny_model

TIMEOUT_S = 400
CHECKPOINT, DIES_IN_STEP, NUM_STEPS = 2, 4, 6
KILLER = """
import os, runpy, signal, sys
from pathlib import Path
from smolvlm.train.smolvlm_trainer import SmolVLMTrainer
mark, step, how = Path(os.environ["MARK"]), int(os.environ["STEP"]), os.environ["HOW"]
step_of = SmolVLMTrainer.training_step
def training_step(self, *args, **kwargs):
    loss = step_of(self, *args, **kwargs)
    if self.args.process_index == 1 and self.state.global_step + 1 == step and not mark.exists():
        mark.touch()
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
    run_file: Path, *arguments: str, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command; a `sitecustomize` beside the run file, if there is one, is read by ranks."""
    paths = [str(run_file.parent), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "smolvlm", "launch", str(run_file), *arguments],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))} | (environment or {}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
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


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV"])
def test_a_killed_rank_comes_back_and_the_run_is_the_one_that_nothing_happened_to(
    how: str, whole: Path, model: Path, tmp_path: Path
) -> None:
    run_file = write_run(tmp_path, model)
    only_ranks = f"import sys\nif 'train' in sys.orig_argv:\n    exec({KILLER!r})\n"
    (tmp_path / "sitecustomize.py").write_text(only_ranks)
    result = launched(
        run_file,
        "--nproc",
        "2",
        environment={"MARK": str(tmp_path / "mark"), "STEP": str(DIES_IN_STEP), "HOW": how},
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "mark").exists()
    assert f"note: rank 1 was killed by {how}; all 2 ranks begin again (1 of 3)" in result.stderr
    assert f"resuming from {tmp_path / 'out' / f'checkpoint-{CHECKPOINT}'}" in result.stderr
    assert losses(tmp_path / "out") == losses(whole)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", whole))
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
