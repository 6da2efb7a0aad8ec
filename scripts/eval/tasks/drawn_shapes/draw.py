"""Draws the pictures and rows beside this file: twelve shapes, two questions each.

    python scripts/eval/tasks/drawn_shapes/draw.py

They are in the manner of easy-VQA, which `smolvlm quickstart` trains on, so that its model has
something to answer; the same files are written every time. `rows.jsonl` is what `drawn_shapes.yaml`
hands to lmms-eval, and what `smolvlm eval --mixture scripts/eval/drawn_shapes.yaml` reads.
"""

import json
from pathlib import Path

from PIL import Image, ImageDraw

HERE = Path(__file__).parent
SIDE_PX = 64
COLORS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
    "yellow": (255, 255, 0),
}
SHAPES = ("circle", "rectangle", "triangle")


def draw(shape: str, color: str, number: int) -> Image.Image:
    """Return a shape on light gray; where it stands and how large it is follows from a number."""
    picture = Image.new("RGB", (SIDE_PX, SIDE_PX), (240, 238 - number, 236))
    pen, size = ImageDraw.Draw(picture), 24 + number % 4 * 4
    left, top = 4 + number * 7 % 28, 4 + number * 5 % 28
    box = (left, top, left + size, top + size)
    if shape == "circle":
        pen.ellipse(box, fill=COLORS[color])
    elif shape == "rectangle":
        pen.rectangle((left, top, left + size, top + size * 2 // 3), fill=COLORS[color])
    else:
        corners = [(left, top + size), (left + size, top + size), (left + size // 2, top)]
        pen.polygon(corners, fill=COLORS[color])
    return picture


def main() -> None:
    """Write pictures and rows."""
    rows = []
    (HERE / "pictures").mkdir(exist_ok=True)
    for number in range(12):
        color, shape = list(COLORS)[number % 6], SHAPES[number * 5 % 3]
        name = f"pictures/{number:02}.png"
        draw(shape, color, number).save(HERE / name, optimize=True)
        asked = {"what shape is in the image?": shape, "what is the color of the shape?": color}
        rows += [
            {"question": question, "answer": answer, "image": name}
            for question, answer in asked.items()
        ]
    (HERE / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()
