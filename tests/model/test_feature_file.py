"""Whatever happens to the cache's file, features are computed again and a line says so; nothing
ends, and nothing wrong is read."""

import os
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
import torch

from smolvlm.disk.atomic_files import SUFFIX
from smolvlm.model import feature_file
from smolvlm.model.vision_cache import FeatureLayout, VisionCache, closing_caches
from tests.small_disks import fill, memory_disk, run

LAYOUT = FeatureLayout(stage="tower", shape=(64, 64), dtype=torch.float32)
KEYS = [number.to_bytes(16, "little") for number in range(40)]
FEATURES = torch.randn(len(KEYS), *LAYOUT.shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def cache(tmp_path: Path) -> VisionCache:
    """A closed cache of 40 entries of 16 KiB."""
    cache = VisionCache(tmp_path / "features.lmdb", LAYOUT)
    cache.write(KEYS, FEATURES)
    cache.close()
    return cache


def wrong_and_missing(cache: VisionCache) -> tuple[int, int]:
    """Return how many entries are read with wrong content, and how many are not there."""
    found = cache.read(KEYS)
    pairs = zip(found, FEATURES, strict=True)
    wrong = sum(1 for entry, true in pairs if entry is not None and not torch.equal(entry, true))
    return wrong, sum(entry is None for entry in found)


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records]


def assert_is_usable(cache: VisionCache) -> None:
    for _ in range(2):  # damage that reading did not meet is met by the first
        cache.write(KEYS, FEATURES)
        cache.flush()
        wrong, missing = wrong_and_missing(cache)
        assert wrong == 0
    assert missing == 0
    cache.close()
    assert wrong_and_missing(cache) == (0, 0), "also when it is opened again"
    assert [path.name for path in cache.path.parent.iterdir()] == [cache.path.name]


def test_zeros_in_the_middle_are_misses(
    cache: VisionCache, caplog: pytest.LogCaptureFixture
) -> None:
    data = cache.path / "data.mdb"
    with data.open("r+b") as file:
        file.seek(data.stat().st_size // 2)
        file.write(bytes(65536))
    wrong, missing = wrong_and_missing(cache)
    assert wrong == 0
    assert 4 <= missing <= 6
    assert notes(caplog) == [f"note: {cache.path} has damaged entries, which are computed anew"]
    assert_is_usable(cache)


def test_features_of_another_key_are_a_miss(cache: VisionCache) -> None:
    environment = feature_file.environment_of(cache.path)
    assert environment is not None
    with environment.begin(write=True) as transaction:
        value = transaction.get(KEYS[1])
        assert value is not None
        transaction.put(KEYS[0], value)
    assert cache.read(KEYS[:2])[0] is None
    assert cache.read(KEYS[:2])[1] is not None


@pytest.mark.parametrize("left", [0.9, 0.5, 0.05])
def test_a_file_that_was_cut_off_is_made_anew(
    cache: VisionCache, caplog: pytest.LogCaptureFixture, left: float
) -> None:
    data = cache.path / "data.mdb"
    os.truncate(data, int(data.stat().st_size * left) // 4096 * 4096)
    feature_file.MAX_LOOSE_PAGES, former = 4, feature_file.MAX_LOOSE_PAGES
    try:
        assert wrong_and_missing(cache) == (0, len(KEYS))
    finally:
        feature_file.MAX_LOOSE_PAGES = former
    (note,) = notes(caplog)
    assert note.startswith(f"note: {cache.path} is damaged (")
    assert note.endswith("bytes were cut off) and is made anew")
    assert_is_usable(cache)


@pytest.mark.parametrize("num_bytes", [1, 4096, 10_000, 200_000])
def test_what_a_short_cut_took_is_a_miss_and_the_rest_is_read(
    cache: VisionCache, num_bytes: int
) -> None:
    """As little as a whole file may lack; reading behind its end would kill this process."""
    data = cache.path / "data.mdb"
    os.truncate(data, data.stat().st_size - num_bytes)
    wrong, _ = wrong_and_missing(cache)
    assert wrong == 0
    assert_is_usable(cache)


@pytest.mark.parametrize("name", ["data.mdb", "lock.mdb"])
@pytest.mark.parametrize(
    "content", [b"", b"x", b"not a table of features\n" * 4000, bytes(100_000)]
)
def test_a_foreign_file_is_made_anew(cache: VisionCache, name: str, content: bytes) -> None:
    (cache.path / name).write_bytes(content)
    wrong, _ = wrong_and_missing(cache)
    assert wrong == 0
    assert_is_usable(cache)


def test_a_file_in_the_folders_place_is_taken_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = VisionCache(tmp_path / "features.lmdb", LAYOUT)
    cache.path.write_text("a file")
    assert wrong_and_missing(cache) == (0, len(KEYS))
    assert len(notes(caplog)) == 1
    assert_is_usable(cache)


def test_pages_that_hold_zeros_make_it_anew_while_it_is_read(
    cache: VisionCache, caplog: pytest.LogCaptureFixture
) -> None:
    """All but the two header pages, so that no search comes to an entry."""
    data = cache.path / "data.mdb"
    with data.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(bytes(data.stat().st_size - 2 * 4096))
    assert wrong_and_missing(cache) == (0, len(KEYS))
    assert "is made anew" in notes(caplog)[0]
    assert_is_usable(cache)


def test_a_full_disk_ends_the_writing_and_not_the_reading(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with memory_disk(tmp_path / "disk", size_mb=0.7) as disk:
        cache = VisionCache(disk / "features.lmdb", LAYOUT)
        for start in range(0, len(KEYS), 4):
            cache.write(KEYS[start : start + 4], FEATURES[start : start + 4])
            cache.flush()
        wrong, missing = wrong_and_missing(cache)
        assert wrong == 0
        assert 0 < missing < len(KEYS)
        why = "no space is left on the disk"
        assert notes(caplog) == [
            f"note: {cache.path} takes no more features ({why}): others are computed each time"
        ]
        cache.close()


READ_ONLY = """
import sys, torch
from pathlib import Path
from smolvlm.model.vision_cache import FeatureLayout, VisionCache
layout = FeatureLayout(stage="tower", shape=(64, 64), dtype=torch.float32)
cache = VisionCache(Path(sys.argv[1]), layout)
for _ in range(2):
    assert cache.read([b"k" * 16]) == [None]
    cache.write([b"k" * 16], torch.zeros(1, 64, 64))
    cache.flush()
assert cache.count() == 0
cache.close()
"""


@pytest.mark.parametrize("is_there", [False, True])
def test_a_read_only_disk_is_done_without_and_said_once(tmp_path: Path, is_there: bool) -> None:
    with memory_disk(tmp_path / "disk", size_mb=8) as disk:
        path = disk / "features.lmdb"
        if is_there:
            cache = VisionCache(path, LAYOUT)
            cache.write(KEYS, FEATURES)
            cache.close()
        run("mount", "-o", "remount,ro", disk)
        ran = subprocess.run(
            [sys.executable, "-c", READ_ONLY, str(path)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
    assert ran.returncode == 0, ran.stderr
    why = "Read-only file system"
    assert ran.stderr == f"note: {path} cannot be used ({why}): features are computed each time\n"


def test_what_a_killed_renewal_left_is_removed(cache: VisionCache) -> None:
    left = cache.path.with_name(f".{cache.path.name}.0123{SUFFIX}")
    left.mkdir()
    (left / "data.mdb").write_bytes(bytes(1000))
    assert_is_usable(cache)


LITTLE_MEMORY = """
import resource, sys, torch
from pathlib import Path
from smolvlm.model.vision_cache import FeatureLayout, VisionCache
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (8 << 30),) * 2)
layout = FeatureLayout(stage="tower", shape=(64, 64), dtype=torch.float32)
cache = VisionCache(Path(sys.argv[1]), layout)
cache.write([b"k" * 16], torch.ones(1, 64, 64))
cache.flush()
assert cache.count() == 1
cache.close()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="the limit is set from /proc")
def test_a_process_with_little_memory_maps_less_and_keeps_features(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, str(tmp_path / "features.lmdb")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""


def test_more_caches_than_there_is_address_space_for_are_opened_one_after_the_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = []
    for number in range(2**47 // feature_file.MAP_BYTES[0] + 2):
        with closing_caches():
            cache = VisionCache(tmp_path / f"{number}.lmdb", LAYOUT)
            cache.write(KEYS[:1], FEATURES[:1])
        kept.append(cache)  # as a finished run's objects keep it
    assert notes(caplog) == []
    assert [cache.count() for cache in kept[:3]] == [1, 1, 1], "the next use opens it again"
    for cache in kept[:3]:
        cache.close()


@closing_caches()
def write_and_fail(path: Path) -> None:
    VisionCache(path, LAYOUT).write(KEYS[:1], FEATURES[:1])
    raise ValueError("as from a run")


def test_caches_from_before_stay_open(cache: VisionCache) -> None:
    assert cache.count() == len(KEYS)
    inner = cache.path.with_name("inner.lmdb")
    with pytest.raises(ValueError, match="as from a run"):
        write_and_fail(inner)
    with pytest.raises(lmdb.Error, match="already open"):
        lmdb.open(str(cache.path))
    with lmdb.open(str(inner)) as environment:
        assert environment.stat()["entries"] == 1
    cache.close()


def test_closing_opens_nothing(tmp_path: Path) -> None:
    cache = VisionCache(tmp_path / "features.lmdb", LAYOUT)
    cache.close()
    assert list(tmp_path.iterdir()) == []


OPENED_ON_A_FULL_DISK = """
import sys, torch
from pathlib import Path
from smolvlm.model.vision_cache import FeatureLayout, VisionCache
layout = FeatureLayout(stage="tower", shape=(64, 64), dtype=torch.float32)
cache = VisionCache(Path(sys.argv[1]), layout)
assert cache.read([b"k" * 16]) == [None]
cache.write([b"k" * 16], torch.zeros(1, 64, 64))
cache.close()
"""


def test_a_disk_that_is_full_before_is_done_without(tmp_path: Path) -> None:
    with memory_disk(tmp_path / "disk", size_mb=1) as disk:
        fill(disk / "other")
        path = disk / "features.lmdb"
        ran = subprocess.run(
            [sys.executable, "-c", OPENED_ON_A_FULL_DISK, str(path)],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
    assert ran.returncode == 0, (ran.returncode, ran.stderr)
    assert ran.stderr == (
        f"note: {path} cannot be used (No space left on device): features are computed each time\n"
    )
