"""What the vision cache takes of the disk, and how long its tiles take to keep and to read back.

`python -m benchmarks.vision_cache [FOLDER]`: a line for each size of features, at the published
dimensions: bytes an entry in its file, beside its features' own; milliseconds a tile to write
(committed), to read back from the disk, and from the system's memory; and how long a look-up takes
that finds nothing, in one file and in eight.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

from smolvlm.model.feature_folder import FeatureBound
from smolvlm.model.feature_timing import disk_times
from smolvlm.model.vision_cache import FeatureLayout, Stage, VisionCache
from smolvlm.terminal import say

SIZES: tuple[tuple[str, Stage, tuple[int, int]], ...] = (
    ("256M, connector", "connector", (64, 576)),
    ("256M, tower", "tower", (1024, 768)),
    ("2.2B, connector", "connector", (81, 2048)),
)
NUM_TILES, AT_ONCE = 256, 16


def _milliseconds(began: float, count: int) -> float:
    return (time.perf_counter() - began) / count * 1e3


def line(folder: Path, name: str, layout: FeatureLayout, *, num_files: int = 1) -> str:
    """Return one size's figures.

    Args:
        folder: where they are measured.
        name: of the size.
        layout: of its entries.
        num_files: 1 is without a bound.
    """
    with tempfile.TemporaryDirectory(dir=folder) as place:
        per_file = NUM_TILES * layout.num_bytes * 1.1 / num_files
        bound = None if num_files == 1 else FeatureBound(max_bytes=int(per_file * 8))
        cache = VisionCache(Path(place) / "cache.lmdb", layout, bound)
        keys = [number.to_bytes(16, "little") for number in range(NUM_TILES)]
        features = torch.randn(AT_ONCE, *layout.shape).to(layout.dtype)
        began = time.perf_counter()
        for start in range(0, NUM_TILES, AT_ONCE):
            cache.write(keys[start : start + AT_ONCE], features)
        cache.flush()
        write_ms = _milliseconds(began, NUM_TILES)
        cache.read(keys)
        began = time.perf_counter()
        found = cache.read(keys)
        read_ms = _milliseconds(began, NUM_TILES)
        assert all(one is not None for one in found)
        missing = [number.to_bytes(16, "big") for number in range(1, 1 + NUM_TILES)]
        began = time.perf_counter()
        cache.read(missing)
        miss_ms = _milliseconds(began, NUM_TILES)
        files = list(Path(place).glob("*.lmdb/data.mdb"))
        taken = sum(file.stat().st_size for file in files) / NUM_TILES
        cache.close()
        disk = disk_times(Path(place), layout.num_bytes)
    cold = f"{disk.read_s * 1e3:.3f}" if disk is not None else "-"
    kind = str(layout.dtype).removeprefix("torch.")
    return (
        f"| {name}, {kind} | {len(files)} | {layout.num_bytes:,} | {taken:,.0f} | {write_ms:.2f} | "
        f"{cold} | {read_ms:.3f} | {miss_ms * 1e3:.1f} |"
    )


def main(folder: Path) -> None:
    """Print the table."""
    say("| features | files | bytes | on disk | write, ms | read, ms | in memory, ms | miss, us |")
    say("|---|---|---|---|---|---|---|---|")
    for name, stage, shape in SIZES:
        for dtype in (torch.float32, torch.bfloat16):
            layout = FeatureLayout(stage=stage, shape=shape, dtype=dtype)
            say(line(folder, name, layout))
    layout = FeatureLayout(stage="connector", shape=(64, 576), dtype=torch.bfloat16)
    say(line(folder, "256M, connector", layout, num_files=7))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
