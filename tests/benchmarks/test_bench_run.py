"""Works of every kind run at tiny dimensions, and their systems learn the same."""

from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL comes with the extra `dev`")
import subprocess
import sys

from benchmarks.bench_page import BEGIN, END, read_kept
from benchmarks.bench_works import WORKS

ROOT = Path(__file__).parents[2]
IN_ANY_CASE = ("dpo",)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(work.key, marks=() if work.key in IN_ANY_CASE else pytest.mark.grid)
        for work in WORKS
    ],
)
def test_the_systems_learn_the_same(key: str, tmp_path: Path) -> None:
    page, kept = tmp_path / "page.md", tmp_path / "kept.json"
    page.write_text(f"{BEGIN}\n{END}\n")
    command = [sys.executable, "-m", "benchmarks.bench", "--tiny", "--only", key, "--rounds", "1"]
    command += ["--threads", "1", "--precision", "float32", "--kept", str(kept)]
    command += ["--page", str(page), "--figures", str(tmp_path), "--work-dir", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (row,) = read_kept(kept)
    work = next(work for work in WORKS if work.key == key)
    assert row.key == key
    assert set(row.ratios) == set(work.systems) - {"ours"}
    assert row.loss_difference <= 1e-4
    assert all(added > 0 for added in row.above_model_bytes.values())
    assert (row.matrix_share is None) == (key == "dpo")
    assert "tiny dimensions" in page.read_text()
