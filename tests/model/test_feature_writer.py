"""Features are read as soon as they are handed over, committed in order, and never by a child
process."""

import multiprocessing
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from smolvlm.model.feature_writer import FeatureWriter
from smolvlm.model.vision_cache import FeatureLayout, VisionCache

LAYOUT = FeatureLayout(stage="tower", shape=(5, 8), dtype=torch.float32)
BYTES = 3 * 5 * 8 * 4


class SlowDisk:
    """Commits one batch each time it is let."""

    def __init__(self) -> None:
        self.may_commit = threading.Semaphore(0)
        self.committed: list[tuple[bytes, ...]] = []
        self.fails = False

    def commit(self, keys: Sequence[bytes], features: Tensor) -> None:
        assert self.may_commit.acquire(timeout=30)
        if self.fails:
            raise OSError("no space left")
        assert len(keys) == len(features)
        self.committed.append(tuple(keys))


@pytest.fixture
def disk() -> Iterator[SlowDisk]:
    own = SlowDisk()
    yield own
    own.may_commit.release(1000)


def batch(number: int) -> tuple[list[bytes], Tensor]:
    keys = [bytes([number, tile]) for tile in range(3)]
    return keys, torch.full((3, 5, 8), float(number)) + torch.arange(3.0)[:, None, None]


def test_what_is_handed_over_is_read_before_it_is_committed(disk: SlowDisk) -> None:
    writer = FeatureWriter(disk.commit)
    writer.write(*batch(1))
    writer.write(*batch(2))
    assert disk.committed == []
    found = writer.pending(bytes([2, 1]))
    assert found is not None
    assert torch.equal(found, torch.full((5, 8), 3.0))
    found += 1
    again = writer.pending(bytes([2, 1]))
    assert again is not None
    assert torch.equal(again, torch.full((5, 8), 3.0)), "what is read is a copy"
    assert writer.pending(b"other") is None


def test_of_two_under_one_key_the_later_is_read(disk: SlowDisk) -> None:
    writer = FeatureWriter(disk.commit)
    keys, features = batch(1)
    writer.write(keys, features)
    writer.write(keys, features + 5)
    found = writer.pending(keys[0])
    assert found is not None
    assert torch.equal(found, features[0] + 5)


def test_a_flush_ends_with_everything_committed_in_order(disk: SlowDisk) -> None:
    writer = FeatureWriter(disk.commit)
    for number in range(4):
        writer.write(*batch(number))
    disk.may_commit.release(4)
    writer.flush()
    assert disk.committed == [tuple(batch(number)[0]) for number in range(4)]
    assert writer.pending(bytes([3, 0])) is None


def test_no_more_is_pending_than_is_allowed(disk: SlowDisk) -> None:
    writer = FeatureWriter(disk.commit, max_pending_bytes=2 * BYTES)
    writer.write(*batch(0))
    writer.write(*batch(1))
    third = threading.Thread(target=lambda: writer.write(*batch(2)))
    third.start()
    third.join(timeout=0.2)
    assert third.is_alive(), "there is no room for a third"
    disk.may_commit.release()
    third.join(timeout=30)
    assert not third.is_alive()
    assert disk.committed == [tuple(batch(0)[0])]


def test_a_batch_larger_than_all_that_may_be_pending_goes_through_alone(disk: SlowDisk) -> None:
    writer = FeatureWriter(disk.commit, max_pending_bytes=BYTES // 2)
    disk.may_commit.release(2)
    writer.write(*batch(0))
    writer.write(*batch(1))
    writer.flush()
    assert len(disk.committed) == 2


def test_a_commit_that_failed_is_told_once_and_the_next_goes_on(disk: SlowDisk) -> None:
    writer = FeatureWriter(disk.commit)
    disk.fails = True
    writer.write(*batch(0))
    disk.may_commit.release()
    with pytest.raises(OSError, match="no space left"):
        writer.flush()
    disk.fails = False
    writer.write(*batch(1))
    disk.may_commit.release()
    writer.flush()
    assert disk.committed == [tuple(batch(1)[0])]


def _read_in_child(
    cache: VisionCache, keys: list[bytes], answers: "multiprocessing.SimpleQueue[bool]"
) -> None:
    answers.put(all(found is not None for found in cache.read(keys)))
    cache.write([b"child"], torch.zeros(1, 5, 8))
    cache.flush()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_waits_for_what_is_pending_and_the_child_writes_by_itself(tmp_path: Path) -> None:
    """Forked in the middle of large commits, over and over: a child finds all of it and both can
    write."""
    cache = VisionCache(tmp_path / "features.lmdb", LAYOUT)
    context = multiprocessing.get_context("fork")
    for turn in range(5):
        keys = [bytes([turn, n // 256, n % 256]) for n in range(400)]
        cache.write(keys, torch.zeros(len(keys), 5, 8))
        answers = context.SimpleQueue()
        child = context.Process(target=_read_in_child, args=(cache, keys, answers))
        child.start()
        child.join(timeout=60)
        assert child.exitcode == 0
        assert answers.get()
    assert cache.count() == 5 * 400 + 1


def test_a_process_that_ends_leaves_nothing_pending(tmp_path: Path) -> None:
    """Without a flush: the thread is waited for as the interpreter shuts down."""
    program = f"""
import torch
from pathlib import Path
from smolvlm.model.vision_cache import FeatureLayout, VisionCache
layout = FeatureLayout(stage="tower", shape=(5, 8), dtype=torch.float32)
cache = VisionCache(Path({str(tmp_path / "features.lmdb")!r}), layout)
for n in range(50):
    cache.write([bytes([n])], torch.zeros(1, 5, 8))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    assert VisionCache(tmp_path / "features.lmdb", LAYOUT).count() == 50
