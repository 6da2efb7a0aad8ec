"""Which part of a clip is meant, in every spelling."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.datasets.rows.keys import END_KEYS, START_KEYS
from smolvlm.errors import SampleError
from smolvlm.records import VideoRef
from tests.datasets.rows.row_cases import QA, ROOT, convert, media, messages


def clip(start_s: float | None = None, end_s: float | None = None) -> tuple[VideoRef]:
    return (VideoRef(path=ROOT / "c.mp4", start_s=start_s, end_s=end_s),)


@given(start=st.sampled_from(START_KEYS), end=st.sampled_from(END_KEYS))
def test_every_spelling_in_row_block_and_object(start: str, end: str) -> None:
    begin, stop = (1000 if key.endswith("_ms") else 1 for key in (start, end))
    bounds = {start: 2 * begin, end: 5 * stop}
    assert media({**QA, "video": "c.mp4", **bounds}) == clip(2, 5)
    assert media({**QA, "video": {"path": "c.mp4", **bounds}}) == clip(2, 5)
    block = {"type": "video", "video": "c.mp4", **bounds}
    assert media(messages(("user", [block]), ("assistant", "x"))) == clip(2, 5)
    assert convert({**QA, "video": "c.mp4", **bounds}).unread_keys == ()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0.0),
        (2.5, 2.5),
        ("2.5", 2.5),
        ("0:07", 7.0),
        ("01:07.25", 67.25),
        ("1:02:03.5", 3723.5),
    ],
)
def test_times_as_numbers_and_as_text(value: Any, seconds: float) -> None:
    assert media({**QA, "video": "c.mp4", "start": value}) == clip(seconds)


@pytest.mark.parametrize("value", [True, -1, "-1", "noon", "1:2:3:4", "1e3", "nan", [1], "1:"])
def test_what_is_no_time(value: Any) -> None:
    with pytest.raises(SampleError, match="no time in seconds"):
        convert({**QA, "video": "c.mp4", "end_time": value})


def test_two_spellings_are_not_chosen_between() -> None:
    with pytest.raises(SampleError, match="`start_s` and `start` both give where"):
        convert({**QA, "video": "c.mp4", "start_s": 1, "start": 1})
    with pytest.raises(SampleError, match="stands twice"):
        convert({**QA, "video": {"path": "c.mp4", "start": 1}, "end_s": 3})
    with pytest.raises(SampleError, match="start_s=5 is not before end_s=5"):
        convert({**QA, "video": "c.mp4", "video_start": 5, "video_end": "0:05"})


CLIP_PARTS: list[tuple[str, Any]] = [
    *(("segment", [2, 5]), ("timestamps", [[2.0, 5.0]]), ("from", 2), ("t0", 3), ("time", "0:07")),
    *(("moment", {"a": 1}), ("Start", 2), ("endTime", 4), ("relevant_windows", [[1, 2]])),
    *(("strat", 2), ("end_tme", "5"), ("clip-start-sec", 3), ("begin time", 4)),
]


@pytest.mark.parametrize(("key", "value"), CLIP_PARTS)
def test_a_part_in_unforeseen_words_is_not_passed_over(key: str, value: Any) -> None:
    rows = (
        {**QA, "video": "c.mp4", key: value},
        {**QA, "video": {"path": "c.mp4", key: value}},
        messages(("user", [{"type": "video", "path": "c.mp4", key: value}]), ("assistant", "x")),
    )
    for row in rows:
        with pytest.raises(SampleError) as caught:
            convert(row)
        assert f"{key}`" in caught.value.what
        assert media(row, not_read=frozenset({key})) == clip()
    assert convert({**QA, "image": "a.png", key: value}).unread_keys == (key,)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(
            ("duration", 30),
            ("time", "morning"),
            ("created_time", 1.5),
            ("timestamp", "2020-01-02"),
        ),
        *(("video_id", 3), ("end_reason", 2), ("fps_note", 1), ("times_seen", 4)),
    ],
)
def test_other_facts_about_a_clip_are_only_named(key: str, value: Any) -> None:
    assert convert({**QA, "video": "c.mp4", key: value}).unread_keys == (key,)


def test_half_a_part() -> None:
    assert media({**QA, "video": "c.mp4", "begin": 2, "finish": 5}) == clip(2, 5)
    with pytest.raises(SampleError, match="`duration` beside a begin: it may be the part's"):
        convert({**QA, "video": "c.mp4", "start": 2, "duration": 3})
    assert media({**QA, "video": "c.mp4", "start": 2, "end": 3, "duration": 9}) == clip(2, 3)


@pytest.mark.parametrize("value", [10**400, -(10**400), float("inf"), float("nan")])
def test_a_number_that_no_time_is_is_refused(value: float) -> None:
    for key in (START_KEYS[0], END_KEYS[0], "start_ms", "end_ms"):
        with pytest.raises(SampleError, match="no time in seconds"):
            convert({**QA, "video": "c.mp4", key: value})
