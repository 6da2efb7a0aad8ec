"""Several processes write one cache at once, within a bound: nothing is lost, nothing is kept
twice, and a run keeps what it uses."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smolvlm.disk.file_lock import try_lock
from smolvlm.model import feature_file
from smolvlm.model.feature_folder import PAGE_BYTES, USED, FeatureBound, entry_bytes
from smolvlm.model.vision_cache import FeatureLayout, VisionCache

ROOT = Path(__file__).parents[2]
LAYOUT = FeatureLayout(stage="connector", shape=(64, 64), dtype=torch.bfloat16)
BOUND = FeatureBound(max_bytes=2_000_000, patience=50)
"""About 160 entries of 8 KiB and a page, in files of some 20."""
TIMEOUT_S = 120


def name_of(number: int) -> bytes:
    return number.to_bytes(16, "little")


def features_of(number: int) -> Tensor:
    return torch.full(LAYOUT.shape, float(number % 251), dtype=torch.bfloat16)


def fill(cache: VisionCache, numbers: list[int] | range, *, at_once: int = 4) -> None:
    for start in range(0, len(numbers), at_once):
        part = numbers[start : start + at_once]
        cache.write([name_of(n) for n in part], torch.stack([features_of(n) for n in part]))
    cache.flush()


def there(cache: VisionCache, numbers: list[int] | range) -> set[int]:
    """Return which are kept, each as it was written."""
    found = zip(numbers, cache.read([name_of(number) for number in numbers]), strict=True)
    kept = {number: features for number, features in found if features is not None}
    for number, features in kept.items():
        assert torch.equal(features, features_of(number))
    return set(kept)


def taken(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.lmdb/data.mdb"))


WRITER = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.model.test_feature_folder import *
cache = VisionCache(Path(sys.argv[1]), LAYOUT, {bound})
go = Path(sys.argv[1]).parent / "go"
Path(sys.argv[1]).parent.joinpath(f"ready-{{sys.argv[2]}}").touch()
while not go.exists():
    time.sleep(0.005)
{body}
"""


def start(
    cache: VisionCache, name: str, body: str, bound: FeatureBound | None = None
) -> "subprocess.Popen[str]":
    """Run statements in a process of its own, once `go` is there."""
    program = WRITER.format(root=str(ROOT), bound=repr(bound), body=body)
    return subprocess.Popen(
        [sys.executable, "-c", program, str(cache.path), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )


def wait_for(condition: object) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(processes: list["subprocess.Popen[str]"], folder: Path) -> list[str]:
    """Let processes begin together, and return what each printed."""
    wait_for(lambda: len(list(folder.glob("ready-*"))) >= len(processes))
    (folder / "go").touch()
    answers = []
    for process in processes:
        out, err = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0, err
        answers.append(out)
    return answers


@contextmanager
def alive(cache: VisionCache, body: str) -> Iterator[None]:
    """Keep a process alive that did something to a cache."""
    folder = cache.path.parent
    process = start(
        cache, "alive", f"{body}\n(go.parent / 'done').touch()\ntime.sleep(TIMEOUT_S)", BOUND
    )
    (folder / "go").touch()
    try:
        wait_for((folder / "done").exists)
        yield
    finally:
        process.kill()
        process.communicate()
        (folder / "go").unlink()
        (folder / "done").unlink()


@pytest.fixture
def cache(tmp_path: Path) -> VisionCache:
    return VisionCache(tmp_path / "features.lmdb", LAYOUT)


@pytest.fixture
def bounded(tmp_path: Path) -> VisionCache:
    return VisionCache(tmp_path / "features.lmdb", LAYOUT, BOUND)


@pytest.mark.parametrize("bound", [None, FeatureBound(max_bytes=20_000_000)])
def test_processes_that_write_at_once_lose_nothing_and_keep_nothing_twice(
    cache: VisionCache, bound: FeatureBound | None
) -> None:
    """Three of them, with tiles in common."""
    bodies = [f"fill(cache, range({first}, {first + 200}))" for first in (0, 100, 200)]
    processes = [start(cache, str(n), body, bound) for n, body in enumerate(bodies)]
    ended(processes, cache.path.parent)
    assert there(cache, range(400)) == set(range(400))
    rolled = len(list(cache.path.parent.glob("*.lmdb"))) - 1
    assert cache.count() <= 400 + 4 * 2 * rolled, (
        "two may write a tile on either side of a new file"
    )
    assert (bound is None) == (rolled == 0)


def test_what_another_process_wrote_is_not_written_again(cache: VisionCache) -> None:
    fill(cache, range(40))
    before = taken(cache.path.parent)
    body = "for _ in range(20): fill(cache, range(40))"
    ended([start(cache, "other", body)], cache.path.parent)
    assert taken(cache.path.parent) <= before + 4 * PAGE_BYTES
    assert there(cache, range(40)) == set(range(40))


def test_a_step_does_not_wait_while_another_process_writes(cache: VisionCache) -> None:
    """Another process has the file's one write lock, and gives it back when it is told to."""
    body = (
        "with feature_file.environment_of(cache.path).begin(write=True) as transaction:\n"
        "    transaction.put(name_of(7), b'x')\n"
        "    (go.parent / 'holds').touch()\n"
        "    while not (go.parent / 'end').exists(): time.sleep(0.005)\n"
        "    transaction.abort()\n"
    )
    folder = cache.path.parent
    fill(cache, range(2))
    process = start(cache, "holder", body)
    (folder / "go").touch()
    wait_for((folder / "holds").exists)
    for first in range(0, 40, 4):
        numbers = range(first, first + 4)
        cache.write([name_of(n) for n in numbers], torch.stack([features_of(n) for n in numbers]))
        assert there(cache, numbers) == set(numbers), "and reads what it handed over"
    environment = feature_file.environment_of(cache.path)
    assert environment is not None
    assert environment.stat()["entries"] == 2, "all ten came back though nothing could be written"
    (folder / "end").touch()
    assert cache.count() == 40
    process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0


def test_the_bound_holds_and_the_first_tiles_stay(
    bounded: VisionCache, caplog: pytest.LogCaptureFixture
) -> None:
    folder = bounded.path.parent
    for first in range(0, 600, 4):
        fill(bounded, range(first, first + 4))
        assert taken(folder) <= BOUND.max_bytes
    kept = there(bounded, range(600))
    assert kept == set(range(len(kept)))
    assert len(kept) * entry_bytes(LAYOUT.num_bytes) > 0.8 * BOUND.max_bytes
    assert len(list(folder.glob("*.lmdb"))) >= 4
    assert [record.message for record in caplog.records] == [
        f"note: {folder} holds what data.vision_cache_max_gb allows, 0.002 GB: features of further "
        "tiles are computed each time"
    ]


def test_processes_together_keep_to_the_bound(bounded: VisionCache) -> None:
    bodies = [
        f"for first in range({begin}, {begin + 300}, 4):\n"
        "    fill(cache, range(first, first + 4))\n"
        "    assert taken(go.parent) <= BOUND.max_bytes, taken(go.parent)\n"
        for begin in (0, 1000, 2000)
    ]
    processes = [start(bounded, str(n), body, BOUND) for n, body in enumerate(bodies)]
    ended(processes, bounded.path.parent)
    assert taken(bounded.path.parent) <= BOUND.max_bytes


def test_an_epoch_over_more_than_there_is_room_for_throws_out_nothing(
    bounded: VisionCache,
) -> None:
    """A second run over the same tiles, in another order, keeps what the first one left: else each
    tile would be gone by the time that it is needed."""
    fill(bounded, range(400))
    kept = there(bounded, range(400))
    bounded.close()
    body = (
        "order = torch.randperm(400, generator=torch.Generator().manual_seed(3)).tolist()\n"
        "for number in order * 2:\n"
        "    if not there(cache, [number]): fill(cache, [number])\n"
        "print(sorted(there(cache, range(400))))\n"
    )
    (printed,) = ended([start(bounded, "second", body, BOUND)], bounded.path.parent)
    assert set(map(int, printed.strip()[1:-1].split(","))) == kept


def test_other_rows_take_the_place_of_those_that_nobody_uses(bounded: VisionCache) -> None:
    fill(bounded, range(400))
    bounded.close()
    body = "fill(cache, range(1000, 1400))\nprint(len(there(cache, range(1000, 1400))))"
    (printed,) = ended([start(bounded, "other", body, BOUND)], bounded.path.parent)
    assert int(printed) > 120, "all but what came before its patience ended"
    assert len(there(bounded, range(400))) < 20, "what lies in a file with the new ones"


def test_what_a_living_process_reads_stays(bounded: VisionCache) -> None:
    fill(bounded, range(400))
    bounded.close()
    with alive(bounded, "assert there(cache, range(8)) == set(range(8))"):
        fill(bounded, range(1000, 1400))
        assert there(bounded, range(8)) == set(range(8))
        assert there(bounded, range(1000, 1400))
    assert taken(bounded.path.parent) <= BOUND.max_bytes


def test_of_other_towers_what_was_used_longest_ago_goes_first(bounded: VisionCache) -> None:
    folder = bounded.path.parent
    others = [VisionCache(folder / f"tower{n}.lmdb", LAYOUT) for n in range(3)]
    for number, other in enumerate(others):
        fill(other, range(30))
        other.close()
        for path in folder.glob(f"tower{number}*.lmdb"):
            when = 1_000_000 + (number + 1) % 3
            os.utime(path / USED, (when, when))

    def left() -> list[int]:
        return [n for n in range(3) if list(folder.glob(f"tower{n}*.lmdb"))]

    seen = [left()]
    for first in range(0, 200, 4):
        fill(bounded, range(first, first + 4))
        if left() != seen[-1]:
            seen.append(left())
    assert seen == [[0, 1, 2], [0, 1], [1], []]


def test_a_reader_goes_on_while_files_are_removed(bounded: VisionCache) -> None:
    """It never reads anything wrong, and finds what is written meanwhile."""
    fill(bounded, range(400))
    bounded.close()
    reading = (
        "while not (go.parent / 'end').exists():\n"
        "    there(cache, range(100, 110))\n"
        "    there(cache, range(1000, 1400, 7))\n"
        "print(len(there(cache, range(1000, 1400))))\n"
    )
    writing = "fill(cache, range(1000, 1400))\n(go.parent / 'end').touch()"
    body = reading.replace("    there(cache, range(100, 110))\n", "")
    processes = [start(bounded, n, text, BOUND) for n, text in (("r", body), ("w", writing))]
    printed, _ = ended(processes, bounded.path.parent)
    assert int(printed) > 100


def test_a_killed_process_keeps_nothing_in_use(bounded: VisionCache) -> None:
    fill(bounded, range(20))
    bounded.close()
    with alive(bounded, "assert there(cache, range(8)) == set(range(8))"):
        assert try_lock(bounded.path / USED) is None
    lock = try_lock(bounded.path / USED)
    assert lock is not None
    lock.release()


def test_a_file_that_was_removed_and_made_anew_is_opened_anew(tmp_path: Path) -> None:
    """As when another process makes room while this one has looked at the file without a find."""
    cache = VisionCache(tmp_path / "features.lmdb", LAYOUT, BOUND)
    assert there(cache, range(4)) == set()
    feature_file.remove(cache.path)
    ended([start(cache, "other", "fill(cache, range(4))", BOUND)], tmp_path)
    assert there(cache, range(4)) == set(range(4))
    fill(cache, range(4, 8))
    cache.close()
    assert there(cache, range(8)) == set(range(8))


def test_without_a_bound_a_file_is_read_whoever_made_several(bounded: VisionCache) -> None:
    fill(bounded, range(100))
    bounded.close()
    plain = VisionCache(bounded.path, LAYOUT)
    assert len(list(bounded.path.parent.glob("*.lmdb"))) > 2
    assert there(plain, range(100)) == set(range(100))
    fill(plain, range(100, 600))
    assert there(plain, range(600)) == set(range(600))
