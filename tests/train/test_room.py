"""A run that does not fit on its disk is refused before it trains."""

from pathlib import Path
from typing import Any

import pytest

from smolvlm.disk.disk_space import free_bytes, shown_bytes
from smolvlm.errors import ConfigError
from tests.small_disks import memory_disk
from tests.train.conftest import TrainRun

SAVED = {"train.save_strategy": "steps", "train.save_steps": 2}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (SAVED, "2 checkpoints of 38 MB and the model of 13 MB do not fit: 31 MB are free"),
        (SAVED | {"train.optim": "sgd"}, "2 checkpoints of 13 MB and the model of 13 MB do not"),
        (SAVED | {"train.save_only_model": True}, "2 checkpoints of 13 MB and"),
    ],
)
def test_what_is_missing_is_said_in_numbers(
    train_run: TrainRun,
    words_alone: dict[str, Any],
    tmp_path: Path,
    changes: dict[str, Any],
    words: str,
) -> None:
    with memory_disk(tmp_path / "disk", size_mb=30) as disk:
        out = {"train.output_dir": str(disk / "out")}
        with pytest.raises(ConfigError, match=words) as caught:
            train_run(tmp_path, words_alone | changes | out)
        assert caught.value.where == f"train.output_dir={disk / 'out'}"
        run = train_run(tmp_path, words_alone | out)
        assert run.folder == disk / "out", "without checkpoints it fits"


def test_room_is_asked_of_the_disk_where_a_folder_will_be(tmp_path: Path) -> None:
    with memory_disk(tmp_path / "disk", size_mb=3) as disk:
        assert free_bytes(disk / "a" / "b" / "c") == 3 << 20
    assert [shown_bytes(count) for count in (900, 2e6, 34e6, 3.08e9)] == [
        "1 kB",
        "2.0 MB",
        "34 MB",
        "3.1 GB",
    ]
