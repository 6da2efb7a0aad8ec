"""What the names of media files say: in which order they stand, and which are no media at all.

Comes in: a name, or a path with `/` inside a shard. Goes out: a key to sort by, or whether somebody
else's program left the file there. Nothing is opened and nothing else imported, so that folders of
frames and shards of rows sort by the same rule.
"""

import re

_DIGITS = re.compile(r"([0-9]+)")
_ENDING = re.compile(r"\.[A-Za-z][A-Za-z0-9]*\Z")
"""`.png`, and not the last number of `22.05`."""
_LEFT_BY_PROGRAMS = frozenset(
    {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir"}
)
"""Files and folders of Windows, macOS and network drives, in lower case."""

_Part = str | tuple[int, str]
NaturalKey = tuple[tuple[tuple[_Part, ...], ...], str]


def natural_key(name: str) -> NaturalKey:
    """Return the key that sorts names as people count: `img (2).png` before `img (10).png`.

    Digits anywhere in a name are numbers, so `a1b10` stands before `a10b1`; `/` parts folders.
    Names that differ in nothing but zeros in front or their ending (`1.png`, `01.jpg`) are sorted
    as text, so no two names have equal keys.
    """
    return tuple(_parts(piece) for piece in _ENDING.sub("", name).split("/")), name


def is_litter(name: str) -> bool:
    """Say whether a file is none of the data: hidden (`._a.png`, `.DS_Store`), or left by a program
    (`Thumbs.db`), itself or a folder that it lies in."""
    return any(
        piece.lower() in _LEFT_BY_PROGRAMS or (piece.startswith(".") and piece not in (".", ".."))
        for piece in name.split("/")
    )


def _parts(piece: str) -> tuple[_Part, ...]:
    """Return text and numbers in turn, text first and last.

    A number is (number of digits, digits), which sorts like its value at any length.
    """
    parts: list[_Part] = list(_DIGITS.split(piece))
    numbers = [digits.lstrip("0") for digits in _DIGITS.findall(piece)]
    parts[1::2] = [(len(digits), digits) for digits in numbers]
    return tuple(parts)
