"""Whole rows of every format, each text and picture with its tag.

In: the row's number and a seeded generator. Out: a row that is accepted as it stands, and what its
source has to say of it (`constants`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from fuzz.tags import Part, Tag, picture_base64, picture_bytes, picture_name

Row = dict[str, Any]
ANSWERS = ("It is {}.", "{}", "Two things: {} and no more.")


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseRow:
    """A row that is accepted."""

    row: Row
    pictures: Mapping[str, bytes]
    """Name -> bytes of its picture files."""
    constants: Mapping[str, str] = field(default_factory=dict)


class _Writer:
    """Makes the texts and pictures of one row, in order."""

    def __init__(self, number: int, random: Random) -> None:
        self._number = number
        self.random = random
        self.pictures: dict[str, bytes] = {}
        self._places: dict[Part, int] = {}

    def text(self, part: Part, *, begin: str = "") -> str:
        """Return a text of the next turn of a speaker."""
        place = self._places.get(part, 0)
        self._places[part] = place + 1
        tag = Tag(self._number, part, place)
        if part in ("assistant", "rejected"):
            return self.random.choice(ANSWERS).format(tag)
        return f"{begin}What of {tag} is it?"

    def picture(self) -> Any:
        """Return a picture as a row names it: a file's name, mostly."""
        tag = Tag(self._number, "image", len(self.pictures))
        self.pictures[picture_name(tag)] = picture_bytes(tag)
        if self.random.random() < 0.1:
            return f"data:image/png;base64,{picture_base64(tag)}"
        return picture_name(tag)

    def images(self) -> tuple[str, Row]:
        """Return the marks and the media keys of a row: none, one or two pictures."""
        count = self.random.choice((0, 1, 1, 1, 2))
        named = [self.picture() for _ in range(count)]
        mark = "<image>" * count if self.random.random() < 0.6 else ""
        if not named:
            return "", {}
        if count == 1 and self.random.random() < 0.7:
            return mark, {self.random.choice(("image", "image", "img", "image_path")): named[0]}
        if self.random.random() < 0.2:
            return mark, {f"image_{place}": name for place, name in enumerate(named, start=1)}
        return mark, {"images": named}

    def num_turns(self) -> int:
        return self.random.choice((1, 1, 2, 3))


def _question(writer: _Writer) -> Row:
    mark, media = writer.images()
    row: Row = {"question": writer.text("user", begin=mark), "answer": writer.text("assistant")}
    if writer.random.random() < 0.2:
        row["answers"] = [row.pop("answer")]
    return row | media


def _instruction(writer: _Writer) -> Row:
    mark, media = writer.images()
    row: Row = {"instruction": writer.text("user", begin=mark)}
    if writer.random.random() < 0.5:
        row["input"] = writer.text("user")
    return row | {"output": writer.text("assistant")} | media


def _llava(writer: _Writer) -> Row:
    mark, media = writer.images()
    turns: list[Row] = []
    for number in range(writer.num_turns()):
        begin = mark if not number else ""
        turns += [
            {"from": "human", "value": writer.text("user", begin=begin)},
            {"from": "gpt", "value": writer.text("assistant")},
        ]
    return {"conversations": turns} | media


def _messages(writer: _Writer) -> Row:
    mark, media = writer.images()
    turns: list[Row] = []
    if writer.random.random() < 0.3:
        turns.append({"role": "system", "content": writer.text("system")})
    for number in range(writer.num_turns()):
        begin = mark if not number else ""
        turns += [
            {"role": "user", "content": writer.text("user", begin=begin)},
            {"role": "assistant", "content": writer.text("assistant")},
        ]
    return {"messages": turns} | media


def _blocks(writer: _Writer) -> Row:
    turns: list[Row] = []
    for _ in range(writer.num_turns()):
        shown = [{"type": "image", "path": writer.picture()} for _ in range(2)]
        shown = shown[: writer.random.randrange(3)]
        text = {"type": "text", "text": writer.text("user")}
        answer = [{"type": "text", "text": writer.text("assistant")}]
        turns += [
            {"role": "user", "content": [*shown, text]},
            {"role": "assistant", "content": answer},
        ]
    return {"messages": turns}


def _pairs(writer: _Writer) -> Row:
    mark, media = writer.images()
    pairs = [
        {"user": writer.text("user", begin=mark if not number else "")}
        | {"assistant": writer.text("assistant")}
        for number in range(writer.num_turns())
    ]
    return {"texts": pairs} | media


def _preference(writer: _Writer) -> Row:
    mark, media = writer.images()
    prompt = writer.text("user", begin=mark)
    chosen, rejected = writer.text("assistant"), writer.text("rejected")
    if writer.random.random() < 0.5:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected} | media
    ask = {"role": "user", "content": prompt}
    both = {
        key: [ask, {"role": "assistant", "content": text}]
        for key, text in (("chosen", chosen), ("rejected", rejected))
    }
    return both | media


def _caption(writer: _Writer) -> Row:
    return {"answer": writer.text("assistant"), "image": writer.picture()}


FORMATS: Mapping[str, Callable[[_Writer], Row]] = {
    "question": _question,
    "instruction": _instruction,
    "llava": _llava,
    "messages": _messages,
    "blocks": _blocks,
    "pairs": _pairs,
    "preference": _preference,
    "caption": _caption,
}
FLAT = ("question", "instruction", "caption")
"""Formats whose rows are plain columns."""


def base_row(name: str, number: int, random: Random) -> BaseRow:
    """Return a row of a format.

    Args:
        name: of the format, one of `FORMATS`.
        number: of the row among all of the input.
        random: decides what is in it.
    """
    writer = _Writer(number, random)
    row = FORMATS[name](writer)
    if random.random() < 0.3:
        row["id"] = f"row {Tag(number, 'other', 0)}"
    constants = {"question": "Describe the picture."} if name == "caption" else {}
    return BaseRow(row=row, pictures=writer.pictures, constants=constants)
