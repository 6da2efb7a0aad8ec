"""Two runs in one folder: the second is refused, and a killed one is resumed at once."""

import os
import signal
import subprocess
import sys
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from smolvlm.build.tiny import tiny_model
from smolvlm.disk.one_writer import LOCK
from smolvlm.train.checkpoint_folder import whole_checkpoints

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 240


@pytest.fixture(scope="module")
def run_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    rows = "".join(
        f'{{"question": "What is {n} plus 1?", "answer": "{n + 1}"}}\n' for n in range(24)
    )
    (folder / "rows.jsonl").write_text(rows)
    settings: dict[str, Any] = {
        "model": {"path": str(tiny_model(folder / "tiny", hidden_size=32))},
        "data": {
            "mixture": [{"json_path": str(folder / "rows.jsonl")}],
            "eval_mixture": [{"json_path": str(folder / "rows.jsonl")}],
        },
        "eval": {"max_rows": 2, "max_new_tokens": 2},
        "train": {
            "output_dir": str(folder / "out"),
            "language_model_lr": 1e-3,
            "use_cpu": True,
            "max_steps": 16,
            "logging_steps": 1,
            "packs_per_step": 1,
            "save_strategy": "steps",
            "save_steps": 2,
            "save_total_limit": 1,
            "dataloader_num_workers": 1,
        },
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return folder / "run.yaml"


def smolvlm(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "smolvlm", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_the_second_is_refused_readers_are_not_and_a_killed_one_is_resumed(
    run_file: Path,
) -> None:
    out = run_file.parent / "out"
    first = smolvlm("train", run_file)
    try:
        end = time.monotonic() + TIMEOUT_S
        while not whole_checkpoints(out):
            assert time.monotonic() < end
            assert first.poll() is None, first.communicate()[1]
            time.sleep(0.05)
        first.send_signal(signal.SIGSTOP)  # so that it is there until the others are done
        second = smolvlm("train", run_file, "train.seed=7")
        settings = (out / "run.yaml").read_text()
        _, refusal = second.communicate(timeout=TIMEOUT_S)
        report = smolvlm("report", out)
        _, messages = report.communicate(timeout=TIMEOUT_S)
        assert report.returncode == 0, messages
    finally:
        first.kill()
        first.communicate()
    assert second.returncode == 1
    assert f"error: train.output_dir={out}: process {first.pid} on " in refusal
    assert "writes here\n  fix: wait until it is done or end it" in refusal
    assert (out / "run.yaml").read_text() == settings
    again = smolvlm("train", run_file)
    _, messages = again.communicate(timeout=TIMEOUT_S)
    assert again.returncode == 0, messages
    assert "resuming from" in messages
    assert not (out / LOCK).exists()
    before = digests(out)
    once_more = smolvlm("train", run_file)
    _, messages = once_more.communicate(timeout=TIMEOUT_S)
    assert once_more.returncode == 0, messages
    assert "all 16 steps are done: another train.output_dir begins anew" in messages
    assert digests(out) == before, "a finished run that is asked again adds nothing"


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}
