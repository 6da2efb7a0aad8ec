"""A checkpoint with its marker is on the disk: whatever moment the power goes, a run resumes from
it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smolvlm.train.checkpoint_folder import (
    MARKER,
    changed_content,
    missing_state,
    passed_over,
    step_of,
    whole_checkpoints,
)
from tests.small_disks import after_power_cut, image_disk
from tests.train.conftest import WriteRun

NUM_MOMENTS = 10
DISK_MB = 160
TIMEOUT_S = 300
SAVED = {
    "train.save_strategy": "steps",
    "train.save_steps": 1,
    "train.save_total_limit": 1,
    "train.packs_per_step": 1,
    "train.num_train_epochs": 4,
}


def new_markers(output_dir: Path, process: subprocess.Popen[str]) -> Iterator[int]:
    """Yield the step of each checkpoint once its marker is there; the run stands still then."""
    seen: set[int] = set()
    end = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < end:
        for marker in output_dir.glob(f"checkpoint-*/{MARKER}"):
            step = step_of(marker.parent)
            if step is not None and step not in seen:
                seen.add(step)
                process.send_signal(signal.SIGSTOP)
                yield step
                process.send_signal(signal.SIGCONT)
        time.sleep(0.002)


def test_a_run_whose_power_is_cut_once_a_marker_is_there_has_that_checkpoint(
    write_run: WriteRun, words_alone: dict[str, Any], tmp_path: Path
) -> None:
    image = tmp_path / "disk.img"
    with image_disk(tmp_path / "disk", image, size_mb=DISK_MB) as disk:
        run_file = write_run(
            tmp_path, words_alone | SAVED | {"train.output_dir": str(disk / "out")}
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "smolvlm", "train", str(run_file)],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        before, found = 0, list[bool]()
        try:
            for step in new_markers(disk / "out", process):
                with after_power_cut(image, tmp_path / "after") as left:
                    whole = whole_checkpoints(left / "out")
                    kept = step_of(whole[-1]) if whole else 0
                    # A marker is seen a moment before its folder is synced: the one before it is
                    # whole until then.
                    assert before <= (kept or 0) <= step, passed_over(left / "out")
                    if kept:
                        assert changed_content(whole[-1]) is None
                        assert missing_state(whole[-1]) == []
                        lines = (left / "out" / "metrics.jsonl").read_text().splitlines()
                        assert len(lines) >= kept, "lines of steps that will not be done again"
                found.append(kept == step)
                before = step
                if len(found) == NUM_MOMENTS:
                    break
        finally:
            process.kill()
            _, messages = process.communicate()
        assert len(found) == NUM_MOMENTS, messages
        assert sum(found) > NUM_MOMENTS // 2, "most moments are after the sync"
