"""A run that waits for its data says so once, and what to set, by what the wait is made of."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from smolvlm.datasets.packing.load_times import LoadTimes
from smolvlm.media import medium
from smolvlm.train.data_wait import DataWait
from tests.train.conftest import TrainRun


def watch(said: list[str], **changes: Any) -> DataWait:
    facts: dict[str, Any] = {
        "num_workers": 2,
        "num_cores": 2,
        "keeps_features": False,
        "could_keep_features": False,
    }
    return DataWait(**facts | changes, say=said.append)


def said_of(times: LoadTimes, **changes: Any) -> str:
    said: list[str] = []
    waits = watch(said, **changes)
    waits.line(0.9)
    waits.add(times)
    waits.line(0.34)
    (line,) = said
    return line


def test_it_is_said_once_and_not_of_the_first_line_nor_of_a_short_wait() -> None:
    said: list[str] = []
    waits = watch(said)
    waits.line(0.9)
    waits.line(0.1)
    assert said == []
    waits.line(0.11)
    waits.line(0.9)
    assert len(said) == 1
    assert said[0].startswith("note: 11% of the time waits for data, mostly ")


@pytest.mark.parametrize(
    ("times", "changes", "words"),
    [
        (
            {"total_s": 5.0, "decoding_s": 4.0},
            {"num_workers": 0, "num_cores": 8},
            "decoding pictures and clips: set train.dataloader_num_workers: 2 (0 now)",
        ),
        (
            {"total_s": 5.0, "decoding_s": 4.0},
            {"num_workers": 6, "num_cores": 8},
            "decoding pictures and clips: set train.dataloader_num_workers: 8 (6 now)",
        ),
        (
            {"total_s": 5.0, "decoding_s": 4.0},
            {"could_keep_features": True},
            "decoding pictures and clips: set data.vision_cache: true, and each is decoded once",
        ),
        (
            {"total_s": 5.0, "decoding_s": 4.0},
            {"keeps_features": True},
            "decoding pictures and clips: the next epoch reads features instead",
        ),
        (
            {"total_s": 5.0, "decoding_s": 4.0},
            {},
            "decoding pictures and clips: give the run more cores, or lower data.longest_edge_px, "
            "data.fps or data.max_frames",
        ),
        (
            {"total_s": 5.0, "reading_s": 3.0},
            {},
            "reading files: put the rows' media on a faster disk",
        ),
        (
            {"total_s": 5.0, "features_s": 3.0},
            {"keeps_features": True},
            "reading kept features: put data.vision_cache_dir on a faster disk",
        ),
        ({"total_s": 5.0, "reading_s": 1.0}, {}, "encoding texts: give the run more cores"),
        (
            {"total_s": 5.0, "decoding_s": 4.0, "room_s": 6.0},
            {"num_cores": 8},
            "for memory to load ahead into: raise data.prefetch_mb",
        ),
    ],
)
def test_the_cure_follows_from_what_the_wait_is_made_of(
    times: dict[str, float], changes: dict[str, Any], words: str
) -> None:
    line = said_of(LoadTimes(**times), **changes)
    assert line == f"note: 34% of the time waits for data, mostly {words}"


def test_a_run_whose_pictures_decode_slowly_says_so_and_what_spares_it(
    train_run: TrainRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_tiles = medium.make_tiles

    def slowly(*args: Any) -> Any:
        time.sleep(0.15)
        return make_tiles(*args)

    monkeypatch.setattr(medium, "make_tiles", slowly)
    changes = {"data.vision_cache": False, "train.packs_per_step": 1, "train.logging_steps": 6}
    run = train_run(tmp_path, changes)
    lines = [line for line in capsys.readouterr().err.splitlines() if "waits for data" in line]
    assert len(lines) == 1
    assert "mostly decoding pictures and clips: set data.vision_cache: true" in lines[0]
    log = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert any(json.loads(line).get("data_wait", 0) > 0.1 for line in log[1:])
