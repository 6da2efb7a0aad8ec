"""Commands that are killed leave no process behind, and notice where one of theirs is killed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.test_interruption import process, wait_until
from tests.processes import HAS_PROC, LIMIT_S, children_of, command_of, is_alive
from tests.processes import wait_until as wait_long_for

pytestmark = pytest.mark.skipif(
    not HAS_PROC, reason="the processes of a command are looked up in /proc"
)
NUM_ROWS = 100_000
NUM_WORKERS = 2


def workers_of(command: int) -> list[int]:
    """Return the processes that measure or load for a command: not its bookkeeper."""
    return [child for child in children_of(command) if "resource_tracker" not in command_of(child)]


@pytest.fixture
def commands(
    settings: dict[str, Any], write_yaml: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[str]]:
    """Commands that would go on for longer than the test, each with two processes of its own."""
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path / "home"))
    row = json.dumps({"question": "why " * 9, "answer": "so"}) + "\n"
    (tmp_path / "rows.jsonl").write_text(row * NUM_ROWS)
    write_yaml(tmp_path / "mixture.yaml", [{"path": "rows.jsonl"}])
    base = settings["model"]["path"]
    endless = {
        "output_dir": str(tmp_path / "out"),
        "num_train_epochs": 4000,
        "save_steps": 4000,
        "dataloader_num_workers": NUM_WORKERS,
    }
    content = settings | {"train": settings["train"] | endless, "eval": {"at_start": False}}
    write_yaml(tmp_path / "run.yaml", content)
    measuring = ["mixture.yaml", "--model", base, "--workers", str(NUM_WORKERS)]
    return {
        "prepare": ["prepare", *measuring],
        "check": ["check", *measuring],
        "train": ["train", "run.yaml"],
    }


@pytest.mark.parametrize("name", ["prepare", "check", "train"])
def test_a_command_that_is_killed_leaves_no_process(
    commands: dict[str, list[str]], tmp_path: Path, name: str
) -> None:
    with process(*commands[name], cwd=tmp_path) as (running, log):
        wait_until(lambda: len(workers_of(running.pid)) == NUM_WORKERS, running, log)
        if name == "train":
            wait_until(lambda: "step 2/" in log.read_text(), running, log)
        all_processes = children_of(running.pid)
        running.kill()
        running.wait()
        wait_long_for(
            lambda: not any(map(is_alive, all_processes)),
            lambda: [*map(command_of, all_processes), log.read_text()],
        )


@pytest.mark.parametrize("name", ["prepare", "check"])
def test_a_process_of_a_command_that_is_killed_ends_it_with_a_sentence(
    commands: dict[str, list[str]], tmp_path: Path, name: str
) -> None:
    with process(*commands[name], cwd=tmp_path) as (running, log):
        wait_until(lambda: len(workers_of(running.pid)) == NUM_WORKERS, running, log)
        os.kill(workers_of(running.pid)[-1], signal.SIGKILL)
        running.wait(LIMIT_S)
        text = log.read_text()
    assert running.returncode == 1, text
    assert "Traceback" not in text
    assert "error: num_workers: a process that reads rows " in text


def test_a_loader_worker_that_is_killed_ends_the_run_with_a_sentence(
    commands: dict[str, list[str]], tmp_path: Path
) -> None:
    with process(*commands["train"], cwd=tmp_path) as (running, log):
        wait_until(lambda: "step 2/" in log.read_text(), running, log)
        os.kill(workers_of(running.pid)[0], signal.SIGKILL)
        running.wait(LIMIT_S)
        text = log.read_text()
    assert running.returncode == 1, text
    assert "Traceback" not in text
    assert "the loader worker" in text
    assert "was killed by a signal (Killed)" in text
