"""Boxes and points: how they are read, and how they are compared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.eval.metrics.grounding import (
    box_accuracy,
    iou,
    overlap,
    point_in_box,
    read_box,
    read_point,
)

SIDE = st.integers(0, 1000)


@pytest.mark.parametrize(
    "text",
    [
        "[10, 20, 30, 40]",
        "10, 20, 30, 40",
        "10 20 30 40",
        "It is at [10, 20, 30, 40], I think; 2 of 3.",
        "(10,20),(30,40)",
        "<box>(10,20),(30,40)</box>",
        "<box>[[10, 20, 30, 40]]</box>",
        '{"bbox_2d": [10, 20, 30, 40], "label": "cat 2"}',
        "x1=10 y1=20 x2=30 y2=40",
        "<loc0010><loc0020><loc0030><loc0040>",
        "[10.0, 2e1, 30., 40]",
    ],
)
def test_spellings_of_a_box(text: str) -> None:
    assert read_box(text) == (10, 20, 30, 40)


@pytest.mark.parametrize(
    "text", ["", "none", "[1, 2, 3]", "[1, 2, 3, 4, 5]", "[30, 20, 10, 40]", "1, 2", "[nan,1,2,3]"]
)
def test_no_box(text: str) -> None:
    assert read_box(text) is None
    assert iou(text, ["[0, 0, 1, 1]"]) == box_accuracy(text, ["[0, 0, 1, 1]"]) == 0.0


@pytest.mark.parametrize(
    "text", ["(0.2, 0.3)", "0.2 0.3", "x=0.2, y=0.3", "[0.1, 0.2, 0.3, 0.4]", "click [0.2, .3]"]
)
def test_spellings_of_a_point(text: str) -> None:
    point = read_point(text)
    assert point is not None
    assert point == pytest.approx((0.2, 0.3))
    assert point_in_box(text, ["[0.2, 0.1, 0.5, 0.3001]"]) == 1.0


def test_a_point_beside_the_box_and_none() -> None:
    assert point_in_box("(0.6, 0.3)", ["[0.2, 0.1, 0.5, 0.3]", "[0, 0, 0.1, 0.1]"]) == 0.0
    assert point_in_box("there", ["[0.2, 0.1, 0.5, 0.3]"]) == 0.0
    assert point_in_box("(0.05, 0.1)", ["[0.2, 0.1, 0.5, 0.3]", "[0, 0, 0.1, 0.1]"]) == 1.0


def test_overlap_worked_out_by_hand() -> None:
    assert iou("[0, 0, 10, 10]", ["[5, 0, 15, 10]"]) == pytest.approx(50 / 150)
    assert iou("[0, 0, 10, 10]", ["[20, 20, 30, 30]", "[0, 0, 10, 5]"]) == pytest.approx(0.5)
    assert box_accuracy("[0, 0, 10, 10]", ["[0, 0, 10, 5]"]) == 1.0
    assert box_accuracy("[0, 0, 10, 10]", ["[0, 0, 10, 4.9]"]) == 0.0
    assert overlap((1, 1, 1, 1), (1, 1, 1, 1)) == 0.0


@given(st.lists(SIDE, min_size=8, max_size=8))
def test_overlap_is_a_symmetric_share(sides: list[int]) -> None:
    one, other = (
        (min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in (sides[:4], sides[4:])
    )
    assert overlap(one, other) == overlap(other, one)
    assert 0 <= overlap(one, other) <= 1
    assert overlap(one, one) == (1.0 if one[0] < one[2] and one[1] < one[3] else 0.0)


def test_a_reference_without_a_box_is_a_mistake_in_the_rows() -> None:
    for score in (iou, box_accuracy, point_in_box):
        with pytest.raises(ValueError, match="no reference has a box"):
            score("[0, 0, 1, 1]", ["left"])
