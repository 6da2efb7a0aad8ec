"""Nothing that another library prints by itself appears, and everything else of theirs does."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smolvlm.quiet import drop_import_warnings

ROOT = Path(__file__).parents[2]
OUR_LINES = (
    r" *",
    r" source +metric +value +95 % interval +rows *",
    r" (all|photos|words) +(exact_match|vqa_accuracy|token_accuracy|loss) +\d+\.\d{4} +"
    r"\d+\.\d{4} to \d+\.\d{4} +\d+ *",
    r"eval at step \d+: exact_match .*",
    r"note: (this run trains in float32|\d steps in all).*",
    r"(model|report|answers|next) +\S.*",
    r" {9}('|smolvlm ).*",
    r"\d+ rows, \d+ supervised of \d+ tokens; 0 rows skipped",
    r"\d+ steps, \d+ packs, .*; fill .*",
    r"tower +learning rate +trained +frozen",
    r"(vision_tower|connector|language_model) +[\d.e-]+ +[\d,]+ +[\d,]+",
    r"runs on +cpu .*",
    r"vision cache +\d+ tiles .*",
    r"step \d+/\d+ +loss .*",
)


def test_a_run_prints_our_lines_alone(
    settings: dict[str, dict[str, Any]], write_yaml: Any, tmp_path: Path
) -> None:
    """In a process of its own: what libraries print on import they print once."""
    train = {**settings["train"], "output_dir": str(tmp_path / "out"), "num_train_epochs": 1}
    run_file = write_yaml(tmp_path / "run.yaml", settings | {"train": train})
    ran = subprocess.run(
        [sys.executable, "-m", "smolvlm", "train", str(run_file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    foreign = [
        line
        for line in ran.stderr.splitlines()
        if not any(re.fullmatch(own, line) for own in OUR_LINES)
    ]
    assert foreign == []
    assert "step 1/" in ran.stderr


def test_the_known_warning_is_dropped_and_no_other(caplog: pytest.LogCaptureFixture) -> None:
    drop_import_warnings()
    drop_import_warnings()
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    assert len(logger.filters) == 1
    with caplog.at_level(logging.WARNING):
        logger.warning(
            "Failed to load CPU gemm_4bit_forward from kernels-community: %s.",
            ImportError("kernels"),
        )
        logger.warning("Failed to load something else")
    assert caplog.messages == ["Failed to load something else"]


@pytest.mark.parametrize("hides_downloads", [False, True])
def test_progress_bars_of_loading_are_hidden_and_those_of_downloads_kept(
    hides_downloads: bool,
) -> None:
    code = (
        "from smolvlm.quiet import hide_progress_bars; hide_progress_bars()\n"
        "from transformers.utils.logging import is_progress_bar_enabled\n"
        "from huggingface_hub.utils import are_progress_bars_disabled\n"
        "print(is_progress_bar_enabled(), are_progress_bars_disabled())"
    )
    environment = {
        name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"
    }
    if hides_downloads:
        environment["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.stdout.split(), ran.stderr) == (["False", str(hides_downloads)], "")
