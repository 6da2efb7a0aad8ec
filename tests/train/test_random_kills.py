"""A small part of `make kills`: two kills at random moments, and the runs equal to the bit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("random_kills.py")
TIMEOUT_S = 600


def test_runs_that_are_killed_at_random_equal_the_run_that_was_not() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills of " in done.stdout
    assert done.stdout.endswith("; 0 differences\n")


def run_folder(folder: Path, *, loss: float = 2.0, row: str = "a:1", weight: float = 1.0) -> Path:
    folder.mkdir()
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": loss, "mfu": 0.1}) + "\n")
    (folder / "samples.jsonl").write_text(json.dumps({"step": 1, "rows": [row]}) + "\n")
    save_file({"w": torch.tensor([weight])}, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"loss": 2.0000000000000004}, ["losses, rates or counts"]),
        ({"row": "a:2"}, ["the rows of the steps"]),
        ({"weight": 1.0000001}, ["1 tensors"]),
    ],
)
def test_the_last_bit_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], found: list[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from random_kills import differences

    whole = run_folder(tmp_path / "whole")
    assert differences(run_folder(tmp_path / "killed", **change), whole) == found
