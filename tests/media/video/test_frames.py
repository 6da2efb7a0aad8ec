"""`smolvlm.media.video.frames`: the whole clip is covered, evenly in time, by distinct frames in
order, exactly."""

import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from smolvlm.errors import SampleError
from smolvlm.media.video.frames import ClipIndex, FrameSettings, choose_frames


def index_of(*pts: int, time_base: Fraction = Fraction(1, 10), last: int = 1) -> ClipIndex:
    return ClipIndex(
        pts=np.asarray(pts, dtype=np.int64), time_base=time_base, end_pts=pts[-1] + last
    )


def even(count: int, fps: Fraction | int, first: int = 0) -> ClipIndex:
    return index_of(*range(first, first + count), time_base=1 / Fraction(fps))


def chosen(index: ClipIndex, fps: float = 1.0, max_frames: int = 64, sampling="fps", **part):
    wanted = FrameSettings(fps=fps, max_frames=max_frames, sampling=sampling)
    return choose_frames(index, wanted, **part)


@st.composite
def indices(draw) -> ClipIndex:
    steps = draw(st.lists(st.integers(1, 5000), max_size=60))
    first = draw(st.integers(0, 10**7))
    pts = np.cumsum([first, *steps])
    time_base = Fraction(
        draw(st.integers(1, 1001)), draw(st.sampled_from([10, 1000, 12800, 30000, 90000]))
    )
    return ClipIndex(
        pts=pts, time_base=time_base, end_pts=int(pts[-1]) + draw(st.integers(1, 5000))
    )


@st.composite
def parts(draw, index: ClipIndex) -> tuple[float | None, float | None]:
    end = index.duration_s
    times = st.one_of(st.none(), st.floats(0, end + 1), st.sampled_from(index.times_s.tolist()))
    start_s, end_s = draw(times), draw(times)
    assume(start_s is None or 0 <= start_s < end)
    assume(start_s is None or end_s is None or start_s < end_s)
    return start_s, end_s


def exact(seconds: float | None, otherwise: Fraction) -> Fraction:
    """The decimals as they are written."""
    return otherwise if seconds is None else Fraction(repr(seconds))


rates = st.floats(0.01, 120)
counts = st.integers(1, 80)


@given(
    data=st.data(),
    index=indices(),
    fps=rates,
    max_frames=counts,
    sampling=st.sampled_from(["fps", "uniform"]),
)
def test_frames_are_distinct_in_order_and_as_many_as_the_rule_says(
    data, index, fps, max_frames, sampling
):
    start_s, end_s = data.draw(parts(index))
    frames = chosen(index, fps, max_frames, sampling, start_s=start_s, end_s=end_s)
    times_s = index.times_s
    begin = -np.inf if start_s is None else start_s
    end = np.inf if end_s is None else end_s
    inside = np.flatnonzero((times_s >= begin) & (times_s <= end))
    if not len(inside):  # the one on display
        inside = np.flatnonzero(times_s < begin)[-1:]
    assert list(frames.numbers) == sorted(set(frames.numbers))
    assert set(frames.numbers) <= set(inside.tolist())
    assert frames.times_s == tuple(times_s[list(frames.numbers)].tolist())
    assert frames.duration_s == index.duration_s
    if sampling == "uniform":
        assert len(frames.numbers) == min(max_frames, len(inside))
    else:
        duration = (index.end_pts - int(index.pts[0])) * index.time_base
        shown_s = min(duration, exact(end_s, duration)) - exact(start_s, Fraction(0))
        assert len(frames.numbers) == min(
            max(round(float(shown_s) * fps), 1), max_frames, len(inside)
        )
    assert frames.numbers[0] == inside[0]
    if len(frames.numbers) > 1:
        assert frames.numbers[-1] == inside[-1]


@given(index=indices(), max_frames=counts)
def test_each_target_takes_the_last_frame_not_after_it(index, max_frames):
    numbers = chosen(index, max_frames=max_frames, sampling="uniform").numbers
    if len(numbers) == 1:
        return
    first, last = int(index.pts[0]), int(index.pts[-1])
    on_target = []
    for step in range(len(numbers)):
        target = first + Fraction(last - first) * step / (len(numbers) - 1)
        on_target.append(
            max(number for number, pts in enumerate(index.pts.tolist()) if pts <= target)
        )
    for step, (number, wanted) in enumerate(zip(numbers, on_target, strict=True)):
        if number > wanted:  # only to be distinct
            assert number == numbers[step - 1] + 1
        if number < wanted:  # only to leave room
            assert len(index.pts) - number == len(numbers) - step


@given(
    count=st.integers(1, 3000),
    fps=st.sampled_from([10, 24, 25, Fraction(30000, 1001), 60]),
    wanted=rates,
    top=counts,
)
def test_on_a_clip_of_constant_rate_the_numbers_are_evenly_spread(count, fps, wanted, top):
    """The exact rational counterpart of `numpy.linspace(0, count - 1, n, dtype=int)`."""
    numbers = chosen(even(count, fps), wanted, top).numbers
    n = min(max(round(float(count / Fraction(fps)) * wanted), 1), top, count)
    assert numbers == tuple((count - 1) * step // max(n - 1, 1) for step in range(n))


@settings(deadline=None)  # the first call imports transformers
@given(
    count=st.integers(1, 3000),
    fps=st.sampled_from([10, 24, 25, 30]),
    wanted=st.sampled_from([0.5, 1, 2]),
    top=counts,
)
def test_it_is_the_choice_of_the_released_processor_up_to_its_rounding(count, fps, wanted, top):
    """Its `linspace` truncates floats: where an exact position is a whole number, it may be one
    frame early."""
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor
    from transformers.video_utils import VideoMetadata

    metadata = VideoMetadata(total_num_frames=count, fps=fps, duration=count / fps)
    sample_frames = SmolVLMVideoProcessor.sample_frames
    released = sample_frames(None, metadata, num_frames=top, fps=wanted, skip_secs=0).tolist()  # pyright: ignore[reportArgumentType]
    ours = list(chosen(even(count, fps), wanted, top).numbers)
    assert len(released) <= len(ours)
    if len(released) < len(ours):
        assert min(round(count / fps * wanted), top) > len(
            released
        )  # numpy.unique dropped what rounding merged
        return
    for step, (theirs, own) in enumerate(zip(released, ours, strict=True)):
        is_whole = (count - 1) * step % max(len(ours) - 1, 1) == 0
        assert theirs == own or (is_whole and theirs == own - 1)


def test_a_clip_of_uneven_rate_is_covered_evenly_in_time():
    index = index_of(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 50, 100)
    assert chosen(index, max_frames=3, sampling="uniform").numbers == (0, 10, 11)
    # Targets at 0, 2.5, 5, 7.5 and 10 s find frames 0, 9, 10, 10 and 11; of the two 10s, one can
    # only move back.
    assert chosen(index, max_frames=5, sampling="uniform").times_s == (0.0, 0.8, 0.9, 5.0, 10.0)


def test_the_example_of_the_docstring():
    assert chosen(even(10, 10), fps=4).numbers == (0, 3, 6, 9)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, (0,)), (4, (0,)), (14, (0,)), (15, (0, 14)), (26, (0, 12, 25))]
)
def test_even_the_shortest_clip_gives_a_frame(count, expected):
    assert chosen(even(count, 10)).numbers == expected


def test_a_part_is_taken_with_both_its_ends():
    index = even(100, 10)
    assert chosen(index, fps=2, start_s=1.0, end_s=3.0).times_s == (1.0, 1.6, 2.3, 3.0)
    assert chosen(index, fps=1, start_s=8.0).times_s == (8.0, 9.9)
    assert chosen(index, fps=1, end_s=1.0).times_s == (0.0,)
    assert chosen(index, fps=1, end_s=500.0).numbers == chosen(index, fps=1).numbers
    assert chosen(index, fps=100, start_s=1.1, end_s=1.3).times_s == (1.1, 1.2, 1.3)


def test_thirds_of_a_second_are_found_by_the_times_that_frames_carry():
    index = even(10, 3)
    for number, time_s in enumerate(index.times_s.tolist()[:-1]):
        assert chosen(index, max_frames=9, sampling="uniform", start_s=time_s).numbers[0] == number
        if number:
            assert (
                chosen(index, max_frames=9, sampling="uniform", end_s=time_s).numbers[-1] == number
            )


def test_between_two_frames_the_one_on_display_is_taken():
    index = index_of(0, 10, 200)
    assert chosen(index, start_s=3.0, end_s=7.0).times_s == (1.0,)
    assert chosen(index, start_s=20.05).times_s == (20.0,)


def test_times_count_from_the_clips_begin():
    for first in (-5, 0, 50, 360_000):
        index = even(20, 10, first=first)
        assert chosen(index, fps=2).times_s == (0.0, 0.6, 1.2, 1.9)
        assert chosen(index, fps=1).duration_s == 2.0
        assert chosen(index, fps=10, start_s=1.0, end_s=1.15).times_s == (1.0, 1.1)


@given(data=st.data(), index=indices(), late=st.integers(-(10**6), 10**9))
def test_when_the_files_clock_begins_changes_nothing(data, index, late):
    start_s, end_s = data.draw(parts(index))
    moved = ClipIndex(pts=index.pts + late, time_base=index.time_base, end_pts=index.end_pts + late)
    part = {"start_s": start_s, "end_s": end_s}
    assert chosen(moved, **part) == chosen(index, **part)


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ({"start_s": 2.0, "end_s": 2.0}, "start_s=2 is not before end_s=2"),
        ({"start_s": 3.0, "end_s": 2.0}, "start_s=3 is not before end_s=2"),
        ({"start_s": 10.0}, "start_s=10 is beyond the clip's end at 2.000 s"),
        ({"start_s": 2.0}, "start_s=2 is beyond the clip's end at 2.000 s"),
        ({"start_s": -1.0}, "start_s=-1 is not a time in a clip"),
        ({"end_s": -0.5}, "end_s=-0.5 is not a time in a clip"),
        ({"end_s": float("nan")}, "end_s=nan is not a time in a clip"),
        ({"start_s": float("inf")}, "start_s=inf is not a time in a clip"),
    ],
)
def test_parts_that_are_none_are_refused(part, text):
    with pytest.raises(SampleError) as raised:
        chosen(even(20, 10, first=50), **part)
    assert str(raised.value).startswith(f"{text}\n  fix: ")


@given(index=indices(), size=st.integers(1, 8))
def test_averaging_changes_no_choice(index, size):
    wanted = FrameSettings(fps=1.0, max_frames=64, sampling="fps", average_frames=size)
    frames = choose_frames(index, wanted)
    assert replace(frames, frames_per_slot=1) == chosen(index)
    assert frames.frames_per_slot == size


@pytest.mark.parametrize("average_frames", [0, -1])
def test_groups_of_no_frame_break_the_contract(average_frames):
    wanted = FrameSettings(fps=1.0, max_frames=4, sampling="fps", average_frames=average_frames)
    with pytest.raises(ValueError, match="average_frames"):
        choose_frames(even(20, 10), wanted)


@pytest.mark.parametrize(("fps", "max_frames"), [(0.0, 4), (-1.0, 4), (float("nan"), 4), (1.0, 0)])
def test_settings_that_ask_for_nothing_break_the_contract(fps, max_frames):
    with pytest.raises(ValueError, match="ask for no frame"):
        chosen(even(20, 10), fps, max_frames)


def test_a_clip_of_a_million_frames_takes_a_moment():
    index = ClipIndex(pts=np.arange(10**6) * 512, time_base=Fraction(1, 12800), end_pts=512 * 10**6)
    begin = time.perf_counter()
    assert len(chosen(index, fps=1, max_frames=10**5).numbers) == 40_000
    assert time.perf_counter() - begin < 1


def test_a_rate_beyond_all_numbers_asks_for_every_frame():
    assert chosen(even(5, 1), fps=1e308).numbers == (0, 1, 2, 3, 4)
    assert chosen(even(5, 1), fps=1e308, max_frames=2).numbers == (0, 4)
