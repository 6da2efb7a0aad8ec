"""Tags: what tells which question, answer and picture belong together.

Every text of a generated row holds a tag, and every picture is a plain area whose colour is one. A
tag names the row that it was made for, what it is there, and in which turn; a checksum tells a tag
from one that was damaged. So whatever comes out of a reader says where it came from.
"""

import base64
import io
import re
import zlib
from dataclasses import dataclass
from typing import Literal

from PIL import Image

Part = Literal["system", "user", "assistant", "rejected", "image", "other"]
PARTS: tuple[Part, ...] = ("system", "user", "assistant", "rejected", "image", "other")
_TAG = re.compile(r"zq([0-9a-f]{3})([0-5])([0-9a-f])([0-9a-f]{4})qz")
_MAX_ROWS = 1 << 12


@dataclass(frozen=True, order=True, slots=True)
class Tag:
    """One thing in one generated row."""

    row: int
    """Below 4,096."""
    part: Part
    place: int
    """Which of them, in the order of the row; below 16."""

    def __str__(self) -> str:
        body = f"{self.row % _MAX_ROWS:03x}{PARTS.index(self.part)}{self.place:x}"
        return f"zq{body}{_check(body)}qz"

    @property
    def color(self) -> tuple[int, int, int]:
        """The colour of a picture that stands for it; its last four bits are a checksum."""
        number = self.row << 8 | self.place << 4
        number |= _nibble(number)
        return number >> 16 & 255, number >> 8 & 255, number & 255


def _check(body: str) -> str:
    return f"{zlib.crc32(body.encode()) & 0xFFFF:04x}"


def _nibble(number: int) -> int:
    return zlib.crc32(number.to_bytes(3, "big")) & 15


def tags_in(text: str) -> list[Tag]:
    """Return the whole tags of a text, in order; damaged ones are passed over."""
    return [
        Tag(int(row, 16), PARTS[int(part)], int(place, 16))
        for row, part, place, check in _TAG.findall(text)
        if check == _check(f"{row}{part}{place}")
    ]


def tag_of_picture(picture: Image.Image) -> Tag | None:
    """Return the tag whose colour all of a picture has, or None."""
    colors = picture.getcolors(1)
    if colors is None:
        return None
    color = colors[0][1]
    if not isinstance(color, tuple) or len(color) != 3:
        return None
    red, green, blue = color
    number = red << 16 | green << 8 | blue
    if number & 15 != _nibble(number & ~15):
        return None
    return Tag(number >> 8 & 0xFFF, "image", number >> 4 & 15) if number >> 20 == 0 else None


def picture_bytes(tag: Tag) -> bytes:
    """Return a small PNG file of a tag's colour."""
    file = io.BytesIO()
    Image.new("RGB", (9 + tag.place, 7), tag.color).save(file, format="PNG")
    return file.getvalue()


def picture_name(tag: Tag) -> str:
    """Return what the file of a tag's picture is called."""
    return f"{tag}.png"


def picture_base64(tag: Tag) -> str:
    """Return a tag's picture as text of a row."""
    return base64.b64encode(picture_bytes(tag)).decode()
