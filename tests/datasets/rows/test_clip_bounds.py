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
