"""The comparison with other trainers runs, and compares like with like."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL comes with the extra `dev`")
ROOT = Path(__file__).parents[2]


def test_all_systems_learn_the_same_and_every_line_is_there(tmp_path):
    out = tmp_path / "out.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.peers",
        "--tiny",
        "--rounds",
        "1",
        "--threads",
        "1",
    ]
    command += ["--variant", "frozen_tower", "--variant", "all_trained"]
    run = subprocess.run(
        [*command, "--out", str(out), "--work-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    content = json.loads(out.read_text())
    lines = content["lines"]
    wanted = {
        (system, scenario, variant, phase)
        for system in ("ours", "trl", "trainer")
        for scenario in ("one_question", "five_questions")
        for variant, phase in (
            ("frozen_tower", "first"),
            ("frozen_tower", "second"),
            ("all_trained", "first"),
        )
    }
    assert {
        (line["system"], line["scenario"], line["variant"], line["phase"]) for line in lines
    } == wanted
    assert len(lines) == len(wanted)
    for line in lines:
        ours = next(
            own for own in lines if own["system"] == "ours" and own["scenario"] == line["scenario"]
        )
        assert line["first_loss"] == pytest.approx(ours["first_loss"], rel=1e-4)
        assert line["samples_per_s_min"] <= line["samples_per_s"] <= line["samples_per_s_max"]
        assert (line["padding_share"] == 0) == (line["system"] == "ours")
        assert line["peak_rss_bytes"] > 1e8
    rows = next(
        own["conversational_rows"] for own in content["measured"] if own["conversational_rows"]
    )
    assert rows["num_learned"] - rows["num_learned_without_newlines"] == 2
