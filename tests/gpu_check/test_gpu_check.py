"""The whole check on a CPU in tiny dimensions, and what it says where there is no GPU."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]


def check(folder: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run the check; return its exit status, the lines by stage, and what it printed."""
    no_wheels = folder / "no_wheels"
    command = [sys.executable, "-m", "gpu_check", "--out", str(folder), "--wheels", str(no_wheels)]
    done = subprocess.run(
        [*command, "--limit-factor", "10", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    file = folder / "gpu_check.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return done.returncode, {line["stage"]: line for line in lines}, done.stdout + done.stderr


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[int, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("checked")
    return check(folder, "--device", "cpu", "--tiny", "--stages", "install,exact,launches,resume")


def test_the_stages_pass(checked: tuple[int, dict[str, Any], str]) -> None:
    code, lines, printed = checked
    assert code == 0, printed
    ended = {name: line["status"] for name, line in lines.items()}
    assert ended == {
        "wheels": "skipped",
        "install": "passed",
        "exact": "passed",
        "launches": "passed",
        "resume": "passed",
    }


def test_every_layout_and_precision_is_compared(checked: tuple[int, dict[str, Any], str]) -> None:
    figures = checked[1]["exact"]["figures"]
    for size in ("256M", "500M", "2.2B"):
        for precision in ("float32", "bfloat16"):
            own = figures[f"{size} {precision}"]
            assert own["tiles"] > 5
            assert max(own["allowed_share"].values()) <= 1


def test_the_resumed_run_is_the_unbroken_one(checked: tuple[int, dict[str, Any], str]) -> None:
    figures = checked[1]["resume"]["figures"]
    assert figures["steps"] == 9
    assert figures["losses_apart_after"] == 0


def test_padded_packs_have_the_loss_of_the_packs_and_fewer_shapes(
    checked: tuple[int, dict[str, Any], str],
) -> None:
    figures = checked[1]["launches"]["figures"]
    assert figures["padded, loss difference"] < 1e-6
    assert figures["padded"]["shapes"] < figures["as they are"]["shapes"]
    assert figures["padded, masters, loss difference"] < 1e-3
    masters = figures["masters_gradients"]
    assert masters["difference"] == 0.0
    assert masters["equal"] == masters["tensors"] > 20
    if "without_liger" not in figures:
        assert figures["padded, Liger, loss difference"] < 1e-5


def test_versions_are_listed(checked: tuple[int, dict[str, Any], str]) -> None:
    versions = checked[1]["install"]["figures"]["versions"]
    assert versions["torch"] == torch.__version__.partition("+")[0]
    assert versions["transformers"] != "missing"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_each_stage_says_so(tmp_path: Path) -> None:
    code, lines, printed = check(tmp_path, "--stages", "install,sync")
    assert code == 3
    for stage in ("install", "sync"):
        assert lines[stage]["status"] == "failed"
        assert lines[stage]["error"].startswith("no usable CUDA device (torch ")
    assert "2 failed" in printed
    assert (tmp_path / "table.txt").read_text() in printed
