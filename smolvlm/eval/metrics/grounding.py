"""Grounding: boxes and points that an answer writes, against those of the reference.

In: texts that hold numbers. Out: an overlap, or 1 or 0. Answer and reference are in the same
convention, whichever it is: pixels, shares from 0 to 1, or 0 to 1000; `x1, y1, x2, y2`. Both are
read alike, so a model that writes another convention than it was trained on scores 0.
"""

import re
from collections.abc import Sequence

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(_NUMBER)
_LIST = re.compile(r"[\[(<{]\s*" + rf"({_NUMBER}(?:[\s,;]+{_NUMBER})+)" + r"\s*[\])>}]")
"""Numbers between one pair of brackets: `[12, 34, 56, 78]`."""
_KEY = re.compile(r"[A-Za-z_]+\d+[A-Za-z_0-9]*|[A-Za-z_]+(?=\s*[\"']?\s*[:=])")
"""Names that hold digits, `bbox_2d` and `x1`; tokens of places, `<loc0123>`, are no names."""
_PLACE_TOKEN = re.compile(r"<\|?(?:loc|bin|coord|pos)?[_-]?(\d+)\|?>", re.IGNORECASE)
ACCURATE_OVERLAP = 0.5

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 with x1 <= x2 and y1 <= y2."""


def read_box(text: str) -> Box | None:
    """Return the first box of a text; None where there is none, or its corners are swapped.

    Read are `[x1, y1, x2, y2]` (any brackets), `(x1, y1), (x2, y2)`, four numbers that are all
    there is, `{"bbox_2d": [...]}`, `x1=... y1=...`, and four tokens of places (`<loc0012>`).
    """
    numbers = _coordinates(text, count=4)
    if numbers is None:
        return None
    x1, y1, x2, y2 = numbers
    return (x1, y1, x2, y2) if x1 <= x2 and y1 <= y2 else None


def read_point(text: str) -> tuple[float, float] | None:
    """Return the first point of a text, or the centre of its first box; None without either."""
    box = read_box(text)
    if box is not None:
        return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    numbers = _coordinates(text, count=2)
    return None if numbers is None else (numbers[0], numbers[1])


def _coordinates(text: str, *, count: int) -> tuple[float, ...] | None:
    tokens = _PLACE_TOKEN.findall(text)
    if len(tokens) == count:
        return tuple(map(float, tokens))
    for inside in _LIST.findall(text):
        numbers = _NUMBERS.findall(inside)
        if len(numbers) == count:
            return tuple(map(float, numbers))
    numbers = _NUMBERS.findall(_KEY.sub(" ", text))
    return tuple(map(float, numbers)) if len(numbers) == count else None


def overlap(one: Box, other: Box) -> float:
    """Return intersection over union, 0 to 1; 0 where both are empty."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    union = _area(one) + _area(other) - shared
    return shared / union if union > 0 else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def iou(answer: str, references: Sequence[str]) -> float:
    """Return the largest intersection over union with a reference's box, 0 to 1.

    An answer without a readable box is worth 0.

    Raises:
        ValueError: no reference has a box.
    """
    true = _true_boxes(references)
    said = read_box(answer)
    return 0.0 if said is None else max(overlap(said, box) for box in true)


def box_accuracy(answer: str, references: Sequence[str]) -> float:
    """Return 1 where the intersection over union is at least one half: RefCOCO's accuracy.

    Raises:
        ValueError: no reference has a box.
    """
    return float(iou(answer, references) >= ACCURATE_OVERLAP)


def point_in_box(answer: str, references: Sequence[str]) -> float:
    """Return 1 where the answer's point, or its box's centre, is in a reference's box.

    Its edges belong to a box. An answer without a readable point is worth 0.

    Raises:
        ValueError: no reference has a box.
    """
    true = _true_boxes(references)
    point = read_point(answer)
    if point is None:
        return 0.0
    x, y = point
    return float(any(box[0] <= x <= box[2] and box[1] <= y <= box[3] for box in true))


def _true_boxes(references: Sequence[str]) -> list[Box]:
    boxes = [box for box in map(read_box, references) if box is not None]
    if not boxes:
        raise ValueError("no reference has a box: four numbers x1, y1, x2, y2")
    return boxes
