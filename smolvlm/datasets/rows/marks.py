"""Marks in a text: where a picture or a clip goes, in the spellings that exist.

A source marks places with `<image>` and `<video>`; where its texts speak of `<image>` themselves
(questions about HTML, say), with `media_markers: distinct` and `<|image_token|>`,
`<|video_token|>`, and everything else is text.

A mark alone on its line stands for the whole line: the newlines beside it are not said to the
model, which was trained without them. `data.mark_newlines: keep` says them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from smolvlm.datasets.rows.media import Kind
from smolvlm.datasets.rows.sources import MediaMarkers

PLACEHOLDERS: Mapping[MediaMarkers, Mapping[Kind, str]] = {
    "plain": {"image": "<image>", "video": "<video>"},
    "distinct": {"image": "<|image_token|>", "video": "<|video_token|>"},
}
"""What marks the place of a picture or a clip, by the source's `media_markers`."""
_MARK = {
    "plain": re.compile("<(image|video)>"),
    "distinct": re.compile(r"<\|(image|video)_token\|>"),
}
_EVERY_MARK = re.compile("|".join(mark.pattern for mark in _MARK.values()))
_NUMBERED = re.compile(r"<\|?image[ _]?([0-9]{1,3})\|?>")
_WORD = "(?:images?|img|pic|picture|photo|video|vision|media|frame|_image_|default_image)"
_PARTS = "(?:[ _-]?(?:[0-9]+|pad|token|start|end|placeholder|soft_token|here|url|context))*"
_OTHER_SPELLING = re.compile(
    # <IMAGE>, <|image_pad|>, < image >, <image/>, &lt;image&gt;, \<image\>
    rf"(?:\\?<|&lt;)\|?\s?{_WORD}{_PARTS}\s?/?\|?(?:\\?>|&gt;)"
    r"|<(?:start|begin|end)_of_(?:image|video)>|<im_(?:start|end|patch)>"
    r"|\[(?:image|img|video)(?:[ _]?[0-9]+)?\]"
    # {image}, {{ image_1 }}
    rf"|\{{{{1,2}}\s?{_WORD}(?:[ _]?[0-9]+)?\s?\}}{{1,2}}"
    # ![a cat](cat.png)
    r"|!\[[^\]\n]{0,200}\]\([^)\n]{1,1000}\)",
    re.IGNORECASE,
)
"""What rows for other models, and pages, mark places with."""
_TAG = re.compile(r"<img\s[^<>]{0,1000}>|<bbox>|<ref-object>", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next listed picture or clip goes, or the one of a number."""

    kind: Kind
    number: int | None = None
    """Counted from 1; None is the next."""


def has_marks(text: str, markers: MediaMarkers = "plain") -> bool:
    """Say whether a text marks the place of a picture or a clip."""
    return _MARK[markers].search(text) is not None


def other_marks(text: str) -> tuple[str, ...]:
    """Return what looks like a mark and is none of ours: `<IMAGE>`, `<|image_pad|>`."""
    if not any(sign in text for sign in "<[{&"):
        return ()
    found = (match[0] for match in _OTHER_SPELLING.finditer(text))
    return tuple(mark for mark in found if not _EVERY_MARK.fullmatch(mark))


def page_pictures(text: str) -> tuple[str, ...]:
    """Return what a text marks as a page would, `<img src="a.png">`, or as grounding rows do."""
    return tuple(_TAG.findall(text)) if "<" in text else ()


def mark_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a text's numbered marks, `<image 1>` or `<image_1>`, in order."""
    return tuple(int(match[1]) for match in _NUMBERED.finditer(text))


def split_at_marks(
    text: str, markers: MediaMarkers = "plain", *, keeps_newlines: bool = False
) -> tuple[str | Place, ...]:
    """Return the text's pieces with a `Place` for each mark.

    "<image>\\nWhat is it?" gives (Place("image"), "What is it?").

    Args:
        text: of the user.
        markers: which marks.
        keeps_newlines: keep the newlines beside a mark that is alone on its line.
    """
    return _split(text, _MARK[markers], keeps_newlines=keeps_newlines)


def split_at_numbers(text: str, *, keeps_newlines: bool = False) -> tuple[str | Place, ...]:
    """Return the text's pieces with a `Place` for each numbered mark."""
    return _split(text, _NUMBERED, keeps_newlines=keeps_newlines)


def _split(text: str, mark: re.Pattern[str], *, keeps_newlines: bool) -> tuple[str | Place, ...]:
    if keeps_newlines or "\n" not in text:
        return _pieces(text, mark)
    pieces: list[str | Place] = []
    plain: list[str] = []
    for line in text.split("\n"):
        found = _pieces(line, mark)
        marks = [piece for piece in found if isinstance(piece, Place)]
        if not marks or any(isinstance(piece, str) and piece.strip() for piece in found):
            plain.append(line)
            continue
        pieces += _pieces("\n".join(plain).removesuffix("\r"), mark)
        plain.clear()
        pieces += marks
    return (*pieces, *_pieces("\n".join(plain), mark))


def _pieces(text: str, mark: re.Pattern[str]) -> tuple[str | Place, ...]:
    pieces: list[str | Place] = []
    for number, piece in enumerate(mark.split(text)):
        if number % 2:
            named = Place("image", int(piece)) if piece.isdigit() else Place(cast("Kind", piece))
            pieces.append(named)
        elif piece:
            pieces.append(piece)
    return tuple(pieces)
