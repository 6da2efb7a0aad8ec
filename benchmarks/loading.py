"""`python -m benchmarks.loading`: how fast one core turns a file into tiles, beside the released
processor.

A photo of 1200 x 900 px lies in a JPEG file; longest edge 2048 px and tiles of 512 px make 13 tiles
of it. Each system starts from the file. Ours goes the way of a loader worker: read, decode, cut to
uint8. (The device normalises; a line of its own shows that done here too.) The released processor
is called as `AutoProcessor` calls it, on a picture that `load_image` opened, once on torchvision
and once on Pillow. They take turns within one process of one thread, so that a busy machine slows
all alike; medians count.

Before anything is timed the tiles are compared. Ours, normalised, must equal the processor of the
same back end, or exit status 3 says that the times compare nothing. Then come clips (`frames.py`).
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import skimage
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers.image_utils import load_image
from transformers.models.idefics3.image_processing_idefics3 import Idefics3ImageProcessor
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

from benchmarks import frames
from smolvlm.media.images import open_rgb, read_bytes
from smolvlm.media.tile_grid import TileSettings
from smolvlm.media.tiles import DEFAULT_BACKEND, ResizeBackend, make_tiles, pixel_values
from smolvlm.records import ImageRef

SETTINGS = TileSettings(tile_side_px=512, longest_edge_px=2048, image_splitting=True)
MEAN, STD, RESCALE_FACTOR = [0.5] * 3, [0.5] * 3, 1 / 255
TOLERANCE = 1e-6
"""The Pillow processor normalises in two float steps, which rounds the last place otherwise."""
EXIT_PIXELS_DIFFER = 3
OURS, TORCHVISION, PILLOW = "ours", "processor on torchvision", "processor on Pillow"
OURS_AS_FLOATS = "ours, normalised too"
Load = Callable[[Path], np.ndarray]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, measure, print; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loading", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--rounds", type=int, default=15, help="measured turns of each system")
    parser.add_argument(
        "--width", type=int, default=1200, help="of the photo, in pixels; three quarters of it high"
    )
    parser.add_argument(
        "--clip", type=Path, help="a video file in place of the one out of the package index"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    torch.set_num_threads(1)
    console = Console(width=None if sys.stdout.isatty() else 120)
    with tempfile.TemporaryDirectory(prefix="smolvlm-bench-") as folder:
        path = write_photo(Path(folder) / "photo.jpg", width_px=options.width)
        differences = pixel_differences(path)
        for backend, difference in differences.items():
            console.print(
                f"largest difference of a pixel value to the processor on {backend}: "
                f"{difference:.1e}"
            )
        num_tiles = len(_ours(path))
        seconds = measure(systems(), path, num_rounds=options.rounds)
        scope = f"{options.width} px wide, {options.rounds} rounds"
        console.print(result_table(seconds, num_tiles=num_tiles, scope=scope))
        clip = Path(shutil.copy(options.clip or frames.sample_clip(), folder))
        are_same_frames = compare_frames(clip, console, num_rounds=options.rounds)
    return 0 if max(differences.values()) <= TOLERANCE and are_same_frames else EXIT_PIXELS_DIFFER


def compare_frames(clip: Path, console: Console, *, num_rounds: int) -> bool:
    """Compare, measure and print each job of a clip; say whether the systems gave the same
    frames."""
    are_same = True
    for job in frames.JOBS:
        difference_s = frames.largest_time_difference_s(clip, job)
        are_same &= difference_s <= frames.TIME_TOLERANCE_S
        levels = frames.mean_pixel_difference(clip, job)
        console.print(
            f"{job.name}: times differ by {difference_s:.1e} s at most, pixels by {levels:.2f} of "
            "255 on average"
        )
        turns = frames.measure_turns(frames.clip_systems(clip, job), num_rounds=num_rounds)
        num_frames = job.frames(clip).num_tiles
        title = f"{job.name}, {num_rounds} rounds"
        console.print(frames.turns_table(turns, title=title, num_frames=num_frames))
    return are_same


def write_photo(path: Path, *, width_px: int) -> Path:
    """Write a photo of 4 : 3 as a JPEG file of usual quality."""
    with Image.open(Path(skimage.__file__).parent / "data" / "coffee.png") as photo:
        size = (width_px, width_px * 3 // 4)
        photo.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(path, quality=90)
    return path


def systems() -> dict[str, Load]:
    """Return what is measured, by name: from a file to its tiles."""
    return {
        OURS: _ours,
        OURS_AS_FLOATS: lambda path: _normalised(_ours(path)),
        TORCHVISION: _stock(Idefics3ImageProcessor),
        PILLOW: _stock(Idefics3ImageProcessorPil),
    }


def pixel_differences(path: Path) -> dict[ResizeBackend, float]:
    """Return the largest difference between our normalised tiles and a processor's, by back end."""
    kinds: dict[ResizeBackend, type] = {"pillow": Idefics3ImageProcessorPil}
    if DEFAULT_BACKEND == "torch":
        kinds["torch"] = Idefics3ImageProcessor
    return {
        backend: float(np.abs(_normalised(_ours(path, backend=backend)) - _stock(kind)(path)).max())
        for backend, kind in kinds.items()
    }


def measure(loads: dict[str, Load], path: Path, *, num_rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each turn by system, after one turn that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in loads}
    for number in range(num_rounds + 1):
        for name, load in loads.items():
            start = time.perf_counter()
            load(path)
            if number:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def result_table(seconds: dict[str, list[float]], *, num_tiles: int, scope: str) -> Table:
    """Return medians, their spread and how much faster ours is."""
    table = Table(
        "from JPEG file to tiles",
        title=f"{num_tiles} tiles of {SETTINGS.tile_side_px} px, one core; {scope}",
    )
    for heading in ("tiles/s", "ms a photo", "fastest - slowest ms", "ours is faster by"):
        table.add_column(heading, justify="right")
    for name, own in seconds.items():
        middle = median(own)
        table.add_row(
            name,
            f"{num_tiles / middle:.0f}",
            f"{middle * 1e3:.0f}",
            f"{min(own) * 1e3:.0f} - {max(own) * 1e3:.0f}",
            f"{middle / median(seconds[OURS]):.2f}",
        )
    return table


def _ours(path: Path, *, backend: ResizeBackend = DEFAULT_BACKEND) -> np.ndarray:
    data = read_bytes(ImageRef(path=path))
    return make_tiles(open_rgb(ImageRef(path=path, data=data)), SETTINGS, backend=backend)


def _normalised(tiles: np.ndarray) -> np.ndarray:
    return pixel_values(tiles, mean=MEAN, std=STD, rescale_factor=RESCALE_FACTOR)


def _stock(kind: type) -> Load:
    processor = kind(
        size={"longest_edge": SETTINGS.longest_edge_px},
        max_image_size={"longest_edge": SETTINGS.tile_side_px},
        do_image_splitting=SETTINGS.image_splitting,
        resample=Image.Resampling.LANCZOS,
        image_mean=MEAN,
        image_std=STD,
        rescale_factor=RESCALE_FACTOR,
    )
    return lambda path: processor(load_image(str(path)), return_tensors="pt")["pixel_values"][
        0
    ].numpy()


if __name__ == "__main__":
    sys.exit(main())
