"""Which frames of a clip are shown: arithmetic on presentation times alone, no file and no pixels.

Comes in: a `ClipIndex` (when every frame is shown, in the clip's own ticks), how densely to sample,
and maybe a part of the clip. Goes out: `Frames`. The frames are spread evenly over TIME, the first
and the last of the part always among them, so that clips of variable rate are covered as evenly as
those of constant rate. Everything that picks a frame is done in whole ticks: a division rounded in
floating point would now and then pick the neighbour, and another machine or another order of
operations another one.

On a clip of constant rate the choice is that of `SmolVLMVideoProcessor.sample_frames` without
skipped seconds, but for positions that its `numpy.linspace` computes a hair below a whole number
and then truncates.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
from jaxtyping import Int64

from smolvlm.errors import SampleError
from smolvlm.records import Frames

FrameSampling = Literal["fps", "uniform"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameSettings:
    """How many frames of a clip are shown."""

    fps: float
    """Frames a second of the clip's time that `sampling: fps` aims at."""
    max_frames: int
    """Never more than these."""
    sampling: FrameSampling
    """`fps` takes fewer frames of a shorter clip, `uniform` takes `max_frames` of every clip that
    has them."""
    average_frames: int = 1
    """How many consecutive frames of those share one place in the text; 1 gives each its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipIndex:
    """When each frame of a clip is shown: ticks by the file's clock, seconds from the clip's begin.

    A file's clock may begin anywhere: at 1.4 s in most transport streams, at the hour of the day in
    a recording. Ticks find frames in the file; whatever people or models read counts from the first
    frame's begin, which is 0 s.
    """

    pts: Int64[np.ndarray, " frame"]
    """Presentation times by the file's clock: ascending, distinct, at least one."""
    time_base: Fraction
    """Seconds a tick."""
    end_pts: int
    """When the last frame ends, by the file's clock."""

    @property
    def duration_s(self) -> float:
        """From the first frame's begin to the last frame's end."""
        return self.time_s(self.end_pts)

    @property
    def times_s(self) -> np.ndarray:
        """Each frame's time in seconds from the clip's begin, as the nearest float64."""
        return (self.pts - self.pts[0]) * self.time_base.numerator / self.time_base.denominator

    def time_s(self, pts: int) -> float:
        """Return a time of the file's clock in seconds from the clip's begin."""
        return float((pts - int(self.pts[0])) * self.time_base)


def choose_frames(
    index: ClipIndex,
    settings: FrameSettings,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Frames:
    """Return the frames to show of a clip, or of its part from `start_s` to `end_s`.

    Candidates are the frames shown first within the part; if there is none, the one on display at
    its start. From them n = clamp(round(seconds * fps), 1, max_frames) are taken (`uniform`:
    max_frames), never more than there are: each target time, evenly spaced from the first candidate
    to the last, takes the last frame not after it, and where two would take the same the later
    moves on, or at the end of the clip the earlier moves back. A clip of 10 frames a second lasting
    1 s, at 4 fps, gives frames 0, 3, 6 and 9.

    Args:
        index: of the clip.
        settings: any with fps > 0, max_frames >= 1 and average_frames >= 1.
        start_s: begin of the part, in seconds from the clip's begin; None is the clip's.
        end_s: end of the part, both ends included.

    Raises:
        SampleError: the part is empty, or lies outside the clip.
        ValueError: fps or max_frames that ask for nothing, or groups of no frame.
    """
    if not settings.fps > 0 or settings.max_frames < 1:
        raise ValueError(
            f"fps={settings.fps} and max_frames={settings.max_frames} ask for no frame"
        )
    if settings.average_frames < 1:
        raise ValueError(
            f"average_frames={settings.average_frames}: a place in the text shows at least one "
            "frame"
        )
    _check_part(index, start_s, end_s)
    times_s = index.times_s
    first, last = _candidates(times_s, start_s, end_s)
    pts = index.pts[first : last + 1]
    if settings.sampling == "uniform":
        wanted = settings.max_frames
    else:
        wanted = round(min(_shown_s(index, start_s, end_s) * settings.fps, settings.max_frames))
    numbers = first + _spread(pts, min(max(wanted, 1), len(pts)))
    return Frames(
        numbers=tuple(numbers.tolist()),
        times_s=tuple(times_s[numbers].tolist()),
        duration_s=index.duration_s,
        frames_per_slot=settings.average_frames,
    )


def _check_part(index: ClipIndex, start_s: float | None, end_s: float | None) -> None:
    fix = "correct the row's start and end: seconds from the clip's begin, the start before the end"
    for name, value in (("start_s", start_s), ("end_s", end_s)):
        if value is not None and (value < 0 or not math.isfinite(value)):
            raise SampleError(f"{name}={value:g} is not a time in a clip", fix=fix)
    if start_s is not None and end_s is not None and start_s >= end_s:
        raise SampleError(f"start_s={start_s:g} is not before end_s={end_s:g}", fix=fix)
    end = index.duration_s
    if start_s is not None and start_s >= end:
        raise SampleError(f"start_s={start_s:g} is beyond the clip's end at {end:.3f} s", fix=fix)


def _candidates(times_s: np.ndarray, start_s: float | None, end_s: float | None) -> tuple[int, int]:
    """Return the first and the last frame within the part, compared as floats."""
    first = 0 if start_s is None else int(np.searchsorted(times_s, start_s, side="left"))
    last = (
        len(times_s) - 1
        if end_s is None
        else int(np.searchsorted(times_s, end_s, side="right")) - 1
    )
    if first > last:  # between two frames: the earlier one is on display
        return max(first - 1, 0), max(first - 1, 0)
    return first, last


def _shown_s(index: ClipIndex, start_s: float | None, end_s: float | None) -> float:
    """Return the seconds that part and clip share, decimals as written: 1.1 - 1.0 is 0.1."""
    begin, end = Fraction(0), (index.end_pts - int(index.pts[0])) * index.time_base
    if start_s is not None:
        begin = Fraction(repr(float(start_s)))
    if end_s is not None:
        end = min(end, Fraction(repr(float(end_s))))
    return float(end - begin)


def _spread(pts: Int64[np.ndarray, " frame"], count: int) -> Int64[np.ndarray, " chosen"]:
    """Return `count` distinct ascending numbers, evenly over time, both ends included."""
    if count == 1:
        return np.zeros(1, dtype=np.int64)
    steps = np.arange(count, dtype=np.int64)
    # The floor of span * step / (count - 1), split so that no product leaves 64 bits.
    whole, rest = divmod(int(pts[-1] - pts[0]), count - 1)
    targets = pts[0] + whole * steps + rest * steps // (count - 1)
    on_display = np.searchsorted(pts, targets, side="right") - 1
    moved_on = np.maximum.accumulate(on_display - steps)
    return np.minimum(moved_on, len(pts) - count) + steps
