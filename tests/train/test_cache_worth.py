"""Whether a cache pays is said from the plan and the times, in one line."""

from typing import Any

import pytest

from smolvlm.datasets.packing.tile_use import TileUse
from smolvlm.model.feature_folder import entry_bytes
from smolvlm.model.feature_timing import DiskTimes
from smolvlm.train.cache_worth import CacheWorth

DISK = DiskTimes(write_s=0.001, read_s=0.0002)
FEATURES = 64 * 576 * 2


def worth(*shown: int, distinct: int = 1000, **changes: Any) -> CacheWorth:
    facts: dict[str, Any] = {"feature_bytes": FEATURES, "compute_s": 0.05, "disk": DISK}
    use = TileUse(num_distinct=distinct, num_shown=shown)
    return CacheWorth(use=use, **facts | changes)


def test_a_run_of_several_epochs_says_size_times_and_from_when_on_it_pays() -> None:
    assert worth(1000, 1000, 1000).line() == (
        "vision cache    78 MB for 1,000 tiles, shown 3,000 times; one is read back in 0.2 ms and "
        "computed in 50 ms or more; pays from epoch 2 on, 99 s of computing saved in all"
    )


@pytest.mark.parametrize(
    ("shown", "changes", "epoch"),
    [
        ((1000, 1000), {}, 2),
        ((3000, 3000), {}, 1),
        ((1000, 1000, 1000), {"compute_s": 0.0009}, 3),
        ((1000, 1000, 1000), {"compute_s": 0.0001}, None),
        ((1000, 1000), {"max_bytes": 10**6}, 2),
    ],
)
def test_it_pays_once_more_was_saved_than_was_written(
    shown: tuple[int, ...], changes: dict[str, Any], epoch: int | None
) -> None:
    assert worth(*shown, **changes).paying_epoch() == epoch


def test_where_reading_takes_longer_than_computing_it_says_what_to_set() -> None:
    line = worth(1000, 1000, compute_s=0.0001).line()
    assert line.endswith("it does not pay: set data.vision_cache: false")


def test_where_no_tile_is_shown_twice_it_is_not_written_unless_asked_for() -> None:
    assert worth(1000).line() == (
        "vision cache    not written: no tile is shown twice; data.vision_cache_dir keeps 78 MB "
        "for 1,000 tiles for later runs"
    )
    assert worth(1000, is_asked_for=True).line() == (
        "vision cache    78 MB for 1,000 tiles, for later runs: this one shows none twice"
    )


def test_room_for_a_part_of_them_and_those_that_are_there_are_spoken_of() -> None:
    half = 500 * entry_bytes(FEATURES)
    assert "there is room for 50% of them" in worth(1000, 1000, max_bytes=half).line()
    assert "there is room for 50% of them" in worth(1000, 1000, free_bytes=half).line()
    assert "shown 2,000 times (12 are there)" in worth(1000, 1000, num_kept=12).line()
    assert "room" not in worth(1000, 1000, max_bytes=10**12, free_bytes=10**12).line()


def test_without_times_only_the_size_is_told() -> None:
    assert worth(1000, 1000, disk=None).line() == (
        "vision cache    78 MB for 1,000 tiles, shown 2,000 times"
    )
