"""The keys that list media, and the order of what they list."""

from typing import Any

import pytest

from smolvlm.errors import SampleError
from smolvlm.records import ImageRef, VideoRef
from tests.datasets.rows.row_cases import QA, ROOT, A, B, convert, media, user_blocks

C = VideoRef(path=ROOT / "c.mp4")


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        ({"file_name": "a.png"}, (A,)),
        ({"file_name": "c.mp4"}, (C,)),
        ({"image_1": "a.png", "image_2": "b.png"}, (A, B)),
        ({"image_2": "b.png", "image_1": "a.png", "image_3": None}, (A, B)),
        ({"image_10": "b.png", "image_9": "a.png"}, (A, B)),
        ({"image0": "a.png", "image1": "b.png"}, (A, B)),
        ({"img_1": "a.png"}, (A,)),
        ({"video_1": "c.mp4"}, (C,)),
        ({"jpg": "a.png"}, (A,)),
        ({"png": {"bytes": b"\x89PNG", "path": None}}, (ImageRef(data=b"\x89PNG"),)),
        ({"mp4": "c.mp4"}, (C,)),
        ({"video": "c.gif"}, (VideoRef(path=ROOT / "c.gif"),)),
    ],
)
def test_common_keys_are_read(columns: dict[str, Any], shown: tuple[Any, ...]) -> None:
    assert media({**QA, **columns}) == shown


@pytest.mark.parametrize(
    "columns",
    [
        {"image": "a.png", "image_1": "b.png"},
        {"image_1": "a.png", "file_name": "b.png"},
        {"jpg": "a.png", "png": "b.png"},
        {"file_name": "a.png", "scene": "b.png"},
    ],
)
def test_none_of_two_is_dropped(columns: dict[str, str]) -> None:
    with pytest.raises(SampleError, match="looks like media"):
        convert({**QA, **columns})


def test_columns_may_list_several() -> None:
    row = {**QA, "left": "a.png", "right": "b.png", "third": None, "more": ["b.png", "a.png"]}
    assert media(row, columns={"images": ("left", "right", "third")}, not_read=["more"]) == (A, B)
    both = {"image": ("right", "more")}
    assert media(row, columns=both, not_read=["left"]) == (B, B, A)


def test_a_list_of_frames_may_carry_its_rate() -> None:
    clip = VideoRef(frames=(A, B), source_fps=4.0)
    assert media({**QA, "video": ["a.png", "b.png"], "fps": 4}) == (clip,)
    assert media({**QA, "video": {"frames": ["a.png", "b.png"], "fps": 4}}) == (clip,)
    block = {"type": "video", "video": ["a.png", "b.png"], "fps": 4}
    row = {"messages": [{"role": "user", "content": [block, {"type": "text", "text": "q"}]}]}
    row["messages"].append({"role": "assistant", "content": "x"})
    assert user_blocks(row) == (clip, "q")
    with pytest.raises(SampleError, match="`fps` is 0, no rate"):
        convert({**QA, "video": ["a.png"], "fps": 0})
