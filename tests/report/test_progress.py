"""How far a run is, and when it is no longer said to go on."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from smolvlm.report.progress import (
    FILE_NAME,
    HEARD_OF_S,
    Progress,
    end_progress,
    read_progress,
    write_progress,
)


def test_it_reads_back_until_it_is_ended(tmp_path: Path) -> None:
    progress = Progress(step=40, num_steps=1300)
    assert read_progress(tmp_path) is None
    write_progress(tmp_path, progress)
    assert read_progress(tmp_path) == progress
    end_progress(tmp_path)
    end_progress(tmp_path)
    assert read_progress(tmp_path) is None


@pytest.mark.parametrize(("age_s", "is_heard_of"), [(HEARD_OF_S - 60, True), (HEARD_OF_S, False)])
def test_a_run_not_heard_of_for_long_is_not_said_to_train(
    tmp_path: Path, age_s: int, is_heard_of: bool
) -> None:
    at = datetime.now(UTC) - timedelta(seconds=age_s)
    content = {"step": 1, "num_steps": 2, "at": at.isoformat()}
    (tmp_path / FILE_NAME).write_text(json.dumps(content))
    assert (read_progress(tmp_path) is not None) is is_heard_of


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"step": 1, "num_steps": 2, "at": "x"}', '{"at": 3}', "\udcff"]
)
def test_a_damaged_file_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE_NAME).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert read_progress(tmp_path) is None


def test_a_time_without_its_zone_says_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_text('{"step": 1, "num_steps": 2, "at": "2026-01-31T12:00:00"}')
    assert read_progress(tmp_path) is None


def test_it_says_itself() -> None:
    assert Progress(step=40, num_steps=1300).sentence() == "Step 40 of 1,300, still training."
    assert Progress(step=3, num_steps=3).sentence().startswith("All 3 steps are done; ")
