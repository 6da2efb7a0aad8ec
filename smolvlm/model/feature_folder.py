"""The files that the features of one tower lie in, and how much of the disk all of a folder's take.

In: `FOLDER/FINGERPRINT.lmdb`. Out: the files to read from, and the one to write to. Without a bound
that is one file. With one (`data.vision_cache_max_gb`) features go into files of an eighth of it
each, `FINGERPRINT.lmdb`, `FINGERPRINT.1.lmdb` and so on, since a file of LMDB never shrinks: whole
files are removed to make room. The file whose last use is longest ago goes first, whichever tower
it is of. A file stays for as long as a process lives that read from it or wrote to it: each has a
shared lock on the file's `used`, whose time says when the last use began.

So a run never removes what it uses itself. Where the bound holds fewer tiles than a run has, the
first ones stay and the others are computed each time: with the oldest thrown out, each would be
gone by the time it is needed again. And before a file of its own tower is removed, `PATIENCE` tiles
must have been looked for and not been in any file: in the random order of an epoch a run meets by
then whatever holds some of its tiles.
"""

import glob
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from smolvlm.disk.atomic_files import remove_leftovers
from smolvlm.disk.file_lock import FileLock, LocksUnavailableError, try_lock
from smolvlm.model import feature_file
from smolvlm.notices import notice

SUFFIX = ".lmdb"
USED = "used"
"""In a file's folder: who reads or writes it has a shared lock on this."""
LOCK = ".vision_cache.lock"
"""In a bounded folder: who makes room has this."""
PATIENCE = 1000
PARTS = 8
PAGE_BYTES = 4096
RESERVE_BYTES = 32 * PAGE_BYTES
"""Of the bound: pages of the tree that a commit writes anew."""
SETTLED_NS = 10**9
"""A folder that was changed less than this ago may be changed again within its clock's tick."""
_POLL_S = 0.005


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureBound:
    """How much of the disk the features of a folder may take."""

    max_bytes: int
    patience: int = PATIENCE
    """Tiles that were in no file, before one of the same tower is removed."""

    @property
    def part_bytes(self) -> int:
        """From this size on a file is followed by another."""
        return self.max_bytes // PARTS


def entry_bytes(num_bytes: int) -> int:
    """Return what an entry of so many bytes takes in a file, about."""
    whole = num_bytes + 48
    if whole < PAGE_BYTES // 4:  # beside others in a page, which are two thirds full
        return whole * 3 // 2
    return -(-whole // PAGE_BYTES) * PAGE_BYTES + 128


class FeatureFolder:
    """The files of one tower; spawned workers may have it."""

    def __init__(self, path: Path, bound: FeatureBound | None) -> None:
        """
        Args:
            path: of the first file.
            bound: of all files in its folder, of other towers too; None is none.
        """
        self.path = path
        self.bound = bound
        self.num_missed = 0
        """Tiles that were to be written."""
        self._files: tuple[Path, ...] = ()
        self._listed_ns = -1
        self._used: dict[Path, tuple[int, FileLock | None]] = {}

    def __getstate__(self) -> tuple[Path, FeatureBound | None]:
        return self.path, self.bound

    def __setstate__(self, state: tuple[Path, FeatureBound | None]) -> None:
        self.__init__(*state)

    def files(self, before_closing: Callable[[], None]) -> tuple[Path, ...]:
        """Return the files to read from; the first one where there are none.

        Args:
            before_closing: called before one is closed that is gone.
        """
        try:
            changed_ns = self.path.parent.stat().st_mtime_ns
        except OSError:
            return (self.path,)
        if changed_ns != self._listed_ns:
            found = tuple(self.there())
            for path in {*found, *self._files, self.path}:
                if feature_file.is_gone(path):
                    before_closing()
                    feature_file.close(path)
            self._files = found or (self.path,)
            is_settled = time.time_ns() - changed_ns > SETTLED_NS
            self._listed_ns = changed_ns if is_settled else -1
        return self._files

    def _numbered(self) -> list[tuple[int, Path]]:
        """Return the files that are there, and their numbers."""
        stem = self.path.name.removesuffix(SUFFIX)
        found: list[tuple[int, Path]] = []
        for path in self.path.parent.glob(f"{glob.escape(stem)}*{SUFFIX}"):
            dot, _, number = path.name.removeprefix(stem).removesuffix(SUFFIX).partition(".")
            if not dot and (not number or number.isdecimal()):
                found.append((int(number or 0), path))
        return sorted(found)

    def there(self) -> list[Path]:
        """Return the files that are there now."""
        return [path for _, path in self._numbered()]

    def known(self) -> set[Path]:
        """Return the files that this process may have open; opens none."""
        return {self.path, *self._files, *self.there()}

    def use(self, path: Path) -> bool:
        """Note that this process uses a file; return whether it is there to be used.

        The first time that is written to the disk, and keeps others from removing the file for as
        long as this process lives.
        """
        process, _ = self._used.get(path, (None, None))
        if process == os.getpid():
            return True
        mark = path / USED
        try:
            lock = try_lock(mark, is_shared=True)
            os.utime(mark)
        except LocksUnavailableError:
            lock = None  # and so nobody removes it
        except OSError:
            return False
        else:
            if lock is None:  # it is being removed
                return False
        self._used[path] = (os.getpid(), lock)
        return True

    def release(self) -> None:
        """Let others remove the files."""
        for _, lock in self._used.values():
            if lock is not None:
                lock.release()
        self._used.clear()

    @contextmanager
    def room(self, count: int, num_bytes: int) -> Iterator[tuple[Path, int]]:
        """Yield the file to write to, and how many entries of `count` there is room for.

        Args:
            count: entries; none of them is in any file.
            num_bytes: of each.
        """
        self.num_missed += count
        with nullcontext() if self.bound is None else self._alone():
            newest, path = max([*self._numbered(), (0, self.path)])
            if self.bound is None:
                path.mkdir(parents=True, exist_ok=True)
                self.use(path)
                yield path, count
                return
            wanted = entry_bytes(num_bytes)
            free = self._make_room(self.bound, count * wanted, kept=path)
            fitting = max(min(count, free // wanted), 0)
            size = _size(path)
            if fitting and size and size + fitting * wanted > self.bound.part_bytes:
                stem = self.path.name.removesuffix(SUFFIX)
                path = self.path.with_name(f"{stem}.{newest + 1}{SUFFIX}")
            if fitting:
                path.mkdir(parents=True, exist_ok=True)
                self.use(path)
            elif self.num_missed > self.bound.patience:
                notice(
                    f"{self.path.parent} holds what data.vision_cache_max_gb allows, "
                    f"{self.bound.max_bytes / 1e9:g} GB: features of further tiles are computed "
                    "each time"
                )
            yield path, fitting

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Be the only one that makes room in the folder, where it has locks."""
        lock = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            while (lock := try_lock(self.path.parent / LOCK)) is None:
                time.sleep(_POLL_S)
        except OSError:  # no locks, or nothing can be written: LMDB says what is wrong
            pass
        try:
            yield
        finally:
            if lock is not None:
                lock.release()

    def _make_room(self, bound: FeatureBound, num_bytes: int, *, kept: Path) -> int:
        """Return how many bytes are free, after removing what is oldest and used by nobody."""
        remove_leftovers(self.path)
        sizes = {path: _size(path) for path in self.path.parent.glob(f"*{SUFFIX}")}
        free = bound.max_bytes - RESERVE_BYTES - sum(sizes.values())
        if free >= num_bytes:
            return free
        ours = set(self.there())
        spares = {kept} if self.num_missed > bound.patience else ours
        for path in sorted(sizes.keys() - spares, key=_last_use):
            if free >= num_bytes:
                break
            if _remove_unused(path):
                free += sizes[path]
        return free


def _size(path: Path) -> int:
    """Return what a file takes of the disk; nothing where it is not there."""
    try:
        return (path / feature_file.DATA).stat().st_size
    except OSError:
        return 0


def _last_use(path: Path) -> float:
    """Return when the last process began to use a file, or when it was written."""
    for name in (USED, feature_file.DATA):
        try:
            return (path / name).stat().st_mtime
        except OSError:
            continue
    return 0.0


def _remove_unused(path: Path) -> bool:
    """Remove a file unless a process uses it, or nobody can know."""
    try:
        lock = try_lock(path / USED)
    except OSError:
        return False
    if lock is None:
        return False
    try:
        feature_file.remove(path)
    except OSError:
        return False
    finally:
        lock.release()
    return True
