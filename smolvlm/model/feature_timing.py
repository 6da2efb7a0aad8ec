"""How long it takes to keep a tile's features and to read them back, where they are to lie.

In: a folder, and what an entry takes. Out: seconds, measured on a file that is made, synced,
dropped from the system's memory and read again. It takes a tenth of a second on a disk of this
decade.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import lmdb

from smolvlm.disk.atomic_files import SUFFIX
from smolvlm.model.feature_file import DATA

PROBE_BYTES = 8 * 10**6
"""Of the file; two entries at least."""
NUM_READS = 8
_MAP_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True, slots=True)
class DiskTimes:
    """Of one entry."""

    write_s: float
    """Until it is on the disk; nothing waits for it."""
    read_s: float
    """From the disk; what the system still has in memory takes less."""


def disk_times(folder: Path, num_bytes: int) -> DiskTimes | None:
    """Measure a folder's disk; None where nothing can be written.

    Args:
        folder: made where it is missing.
        num_bytes: of an entry.
    """
    count = max(2, PROBE_BYTES // max(num_bytes, 4096))
    keys = [number.to_bytes(16, "little") for number in range(count)]
    value = os.urandom(num_bytes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".probe.", suffix=SUFFIX) as place:
            began = time.perf_counter()
            size = max(_MAP_BYTES, 4 * count * num_bytes)
            with (
                lmdb.open(place, map_size=size) as environment,
                environment.begin(write=True) as transaction,
            ):
                for key in keys:
                    transaction.put(key, value)
            write_s = time.perf_counter() - began
            read_s = [_read_s(Path(place), key) for key in keys[:: max(1, count // NUM_READS)]]
    except (lmdb.Error, OSError):
        return None
    return DiskTimes(write_s=write_s / count, read_s=median(read_s))


def _read_s(place: Path, key: bytes) -> float:
    """Return what an entry takes that nothing was read around."""
    _drop_from_memory(place / DATA)
    with (
        lmdb.open(str(place), readonly=True, lock=False) as environment,
        environment.begin(buffers=True) as transaction,
    ):
        began = time.perf_counter()
        value = transaction.get(key)
        assert value is not None
        bytearray(value)
        return time.perf_counter() - began


def _drop_from_memory(path: Path) -> None:
    """Let the system forget a file's pages, where it can be asked to."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
