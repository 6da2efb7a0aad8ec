"""The prompts that an export is proved on: drawn pictures of three shapes, and questions.

The pictures are drawn by Pillow alone, equal wherever they are drawn. They are wide, tall and
square, of sides that are no multiples of anything, so that resizing and the grid of tiles are part
of the proof. One question stands before its picture, and one holds the texts that a run made single
ids.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageDraw

from smolvlm.records import ImageRef, Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class ProofPrompt:
    """A question about one picture."""

    name: str
    question: str
    png: bytes
    is_picture_first: bool = True

    @property
    def turn(self) -> Turn:
        """The user's turn of it."""
        picture = ImageRef(data=self.png)
        blocks = (picture, self.question)
        return Turn(role="user", blocks=blocks if self.is_picture_first else blocks[::-1])


def proof_prompts(new_tokens: Sequence[str] = ()) -> tuple[ProofPrompt, ...]:
    """Return the prompts.

    Args:
        new_tokens: texts that are single ids, which one question then holds.
    """
    listed = "".join(f" {token}" for token in new_tokens)
    wide, tall, square = _drawn(323, 190), _drawn(151, 287), _drawn(240, 240)
    return (
        ProofPrompt(name="wide", question="What is shown in this picture?", png=wide),
        ProofPrompt(name="tall", question="How many of the 12 shapes are red?", png=tall),
        ProofPrompt(
            name="square",
            question=f"Describe{listed} in one sentence: ",
            png=square,
            is_picture_first=False,
        ),
    )


def _drawn(width: int, height: int) -> bytes:
    """Return a PNG of shades with twelve shapes on them."""
    shades = (
        Image.linear_gradient("L"),
        Image.radial_gradient("L"),
        Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90),
    )
    picture = Image.merge("RGB", [shade.resize((width, height)) for shade in shades])
    draw = ImageDraw.Draw(picture)
    colors = ("red", "green", "blue", "yellow")
    for number in range(12):
        left, top = (number * 37) % (width - 30), (number * 53) % (height - 24)
        box = (left, top, left + 12 + number, top + 8 + number)
        (draw.ellipse if number % 2 else draw.rectangle)(box, fill=colors[number % len(colors)])
    stream = BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
