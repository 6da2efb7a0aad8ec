"""Whether what came of an input's rows is right: nothing lost, nothing swapped, nothing made up.

In: the rows of an input by a reference reader, and what the check made of them. Out: faults, in
words. The rules hold for any row, however it was changed:

- every row is there, used or refused;
- what the reference cannot read is refused;
- the tags of a conversation are tags of its row, and its pictures are of that row too;
- a tag of a row is in its conversation, or a key that holds it is said to be unread, or something
  is said of the row;
- who says a tag is who it was made for, and the turns keep their order, unless values were moved;
- a mark that stays in the text is spoken of;
- a row that means what it meant is accepted.
"""

import base64
import io
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from PIL import Image

from fuzz.checked import CheckedInput, CheckedInputRow
from fuzz.references import UNREADABLE
from fuzz.row_changes import Path, leaves
from fuzz.tags import Part, Tag, tag_of_picture, tags_in
from smolvlm.errors import SampleError
from smolvlm.media.images import open_rgb
from smolvlm.records import Block, Conversation, ImageRef, Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpectedRow:
    """What is known of one row."""

    value: Any
    """By the reference reader; `UNREADABLE` where it reads none."""
    is_same: bool = False
    """Whether it has to be accepted."""
    is_moved: bool = False
    """Whether values may stand elsewhere than they were made for."""


def judge_rows(checked: CheckedInput, expected: Sequence[ExpectedRow] | None) -> Iterator[str]:
    """Yield what is wrong with what came of a file of rows.

    Args:
        checked: what the check made of it.
        expected: its rows; None where the reference cannot read the file, so that each accepted row
            has only to be of one piece.
    """
    if checked.refusal is not None:
        if expected and all(row.is_same for row in expected):
            yield f"a whole file is refused: {checked.refusal}"
        return
    if checked.num_counted != len(checked.rows):
        yield f"{checked.num_counted} rows are counted, and {len(checked.rows)} are there"
    if expected is None:
        for row in checked.rows:
            yield from _of_one_piece(row)
        return
    if len(expected) != len(checked.rows):
        yield f"{len(checked.rows)} rows are read where the reference reads {len(expected)}"
        return
    for row, known in zip(checked.rows, expected, strict=True):
        yield from judge_row(row, known)


def judge_row(row: CheckedInputRow, expected: ExpectedRow) -> Iterator[str]:
    """Yield what is wrong with what came of one row."""
    is_refused = any(finding.severity == "error" for finding in row.findings)
    if row.conversation is None and not is_refused:
        yield "a row that cannot be read has no finding"
    if expected.is_same and not row.is_accepted:
        yield f"a whole row is refused: {[finding.message for finding in row.findings]}"
    if not row.is_accepted or row.conversation is None:
        return
    if expected.value is UNREADABLE:
        yield "a row is accepted that the reference cannot read"
        return
    there = _tags_of(expected.value)
    shown, faults = _shown_tags(row.conversation)
    yield from faults
    if strange := {tag for _, tag in shown} - {tag for _, tag in there}:
        yield f"{_listed(strange)} is none of the row's own"
    yield from _lost(row, there, {tag for _, tag in shown})
    if not expected.is_moved:
        yield from _misplaced(shown)
    yield from _silent_marks(row)


def _listed(tags: set[Tag]) -> str:
    return ", ".join(f"row {tag.row}'s {tag.part} {tag.place}" for tag in sorted(tags))


def _tags_of(value: Any) -> list[tuple[Path, Tag]]:
    """Return the tags of a row, each with the path to the text that has it."""
    found: list[tuple[Path, Tag]] = []
    for path, leaf in leaves(value):
        if isinstance(leaf, bytes):
            tags = _tags_of_picture(leaf) or _tags_of_text(leaf.decode("ascii", "replace"))
            found += [(path, tag) for tag in tags]
        elif isinstance(leaf, str):
            found += [(path, tag) for tag in _tags_of_text(leaf)]
    return found


def _tags_of_text(text: str) -> list[Tag]:
    """Return the tags that a text holds, in words or as pictures in base64."""
    found = tags_in(text)
    for encoded in _BASE64_PNG.findall(text):
        found += _tags_of_picture(base64.b64decode(encoded[: len(encoded) // 4 * 4]))
    return found


def _tags_of_picture(data: bytes) -> list[Tag]:
    """Return the tag of a picture's bytes, as far as Pillow makes a picture of them."""
    try:
        tag = tag_of_picture(Image.open(io.BytesIO(data)).convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, struct.error):
        return []
    return [] if tag is None else [tag]


_BASE64_PNG = re.compile(r"iVBOR[A-Za-z0-9+/]+={0,2}")


def _shown_tags(conversation: Conversation) -> tuple[list[tuple[str, Tag]], list[str]]:
    """Return (who says it, tag) of everything in a conversation in order, and what is wrong."""
    shown: list[tuple[str, Tag]] = []
    faults: list[str] = []
    for number, turn in enumerate((*conversation.turns, *conversation.rejected)):
        speaker = turn.role if number < len(conversation.turns) else f"rejected {turn.role}"
        shown += [(speaker, tag) for tag in _texts_tags(turn)]
        for block in turn.blocks:
            for picture in _pictures_of(block):
                tag = _picture_tag(picture)
                shown += [("image", tag)] if tag is not None else []
                faults += [] if tag is not None else [f"{picture.name} has no tag's colour"]
    shown += [("references", tag) for text in conversation.references for tag in tags_in(text)]
    return shown, faults


def _pictures_of(block: Block) -> tuple[ImageRef, ...]:
    if isinstance(block, str):
        return ()
    return (block,) if isinstance(block, ImageRef) else block.frames


def _texts_tags(turn: Turn) -> list[Tag]:
    texts = [block for block in turn.blocks if isinstance(block, str)]
    return [tag for text in texts for tag in _tags_of_text(text)]


def _picture_tag(ref: ImageRef) -> Tag | None:
    try:
        return tag_of_picture(open_rgb(ref))
    except SampleError:
        return None


def _lost(row: CheckedInputRow, there: list[tuple[Path, Tag]], shown: set[Tag]) -> Iterator[str]:
    conversation = row.conversation
    assert conversation is not None, "only of rows that were read"
    if row.findings or conversation.doubts:
        return
    said = (*conversation.unread_keys, *conversation.left_out_keys)
    for path, tag in there:
        name = _key_name(path)
        if tag not in shown and not any(
            name == key or name.startswith((f"{key}.", f"{key}[")) for key in said
        ):
            yield f"{_listed({tag})} at `{name}` is lost without a word"


def _key_name(path: Path) -> str:
    """Return a path as the check writes keys: `messages[].content[].text`."""
    name = ""
    for step in path:
        name += "[]" if isinstance(step, int) else f".{step}" if name else step
    return name


_SPEAKERS: dict[Part, tuple[str, ...]] = {
    "system": ("system",),
    "user": ("user", "rejected user"),
    "assistant": ("assistant", "references"),
    "rejected": ("rejected assistant",),
    "image": ("image", "user", "rejected user"),
}


def _misplaced(shown: list[tuple[str, Tag]]) -> Iterator[str]:
    """Yield tags that another speaker says, or out of their order."""
    for speaker, tag in shown:
        if speaker not in _SPEAKERS.get(tag.part, (speaker,)):
            yield f"{_listed({tag})} is said by {speaker}"
    for part in ("user", "assistant"):
        places = [tag.place for who, tag in shown if who == part == tag.part]
        if any(second < first for first, second in pairwise(places)):
            yield f"the {part}'s turns stand in the order {places}"


def _silent_marks(row: CheckedInputRow) -> Iterator[str]:
    conversation = row.conversation
    assert conversation is not None, "only of rows that were read"
    has_mark = any(
        "<image>" in block
        for turn in conversation.turns
        for block in turn.blocks
        if turn.role == "user" and isinstance(block, str)
    )
    if has_mark and not row.findings:
        yield "`<image>` stays in the text without a word"


def _of_one_piece(row: CheckedInputRow) -> Iterator[str]:
    """Yield what shows that a row was put together of several."""
    if row.conversation is None or not row.is_accepted:
        return
    shown, _ = _shown_tags(row.conversation)
    rows = {tag.row for _, tag in shown}
    if len(rows) > 1:
        yield f"pieces of rows {sorted(rows)} are one conversation"
