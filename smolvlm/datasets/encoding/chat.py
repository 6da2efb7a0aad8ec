"""A conversation as the model reads it: text, special tokens, places for pictures and frames.

In: turns, and what of their media is shown. Out: segments, in order. The wording is the released
chat template's, byte for byte (tests/parity compares the two): `<|im_start|>` once; then a message
as `Role:` (a space after the colon unless a picture comes first), its blocks, `<end_of_utterance>`
and a newline. A clip is a sentence about it, then each frame under its time. Frames that are
averaged stand under the time of the first of them, and the sentence counts the places, not the
frames: word for word what is said about a clip of only those first frames, which every checkpoint
knows.

The writer knows which characters the assistant says, so labels need no searching: exactly the
assistant's text and its `<end_of_utterance>` are learned, and nothing of what is said about a clip.
The space between `Assistant:` and the text counts as the assistant's: generation goes on from the
colon, so the model must say it. (Before a word it is part of the word's first token, before a digit
a token of its own.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from smolvlm.datasets.encoding.video_words import (
    RELEASED_OUTRO,
    PromptWording,
    frame_caption,
    has_intro,
    video_intro,
    with_legacy_words,
)
from smolvlm.records import Frames, Grid, ImageRef, Layout, Turn


class TokenRole(IntEnum):
    """Who a token belongs to; the pages colour by it."""

    TEMPLATE = 0
    SYSTEM = 1
    USER = 2
    ASSISTANT = 3
    IMAGE = 4


SPEAKERS = {"system": TokenRole.SYSTEM, "user": TokenRole.USER, "assistant": TokenRole.ASSISTANT}
GENERATION_PROMPT = "Assistant:"


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters of one speaker within a stretch of text."""

    text: str
    role: TokenRole
    is_learned: bool = False


@dataclass(frozen=True, slots=True)
class TextSegment:
    """Text between two special tokens: encoded as one string."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class StartSegment:
    """`<|im_start|>`."""


@dataclass(frozen=True, slots=True)
class EndSegment:
    """`<end_of_utterance>`."""

    role: TokenRole
    is_learned: bool


@dataclass(frozen=True, slots=True)
class ImageSegment:
    """The place of a picture, or of one frame of a clip, or of several that are averaged."""

    grid: Grid
    medium: int
    """Which of the conversation's media it shows, counted from 0 in prompt order."""


Segment = TextSegment | StartSegment | EndSegment | ImageSegment


WHOLE = Grid(rows=0, columns=0)
"""A frame is never cut."""


def render(
    turns: Sequence[Turn],
    layouts: Sequence[Layout],
    *,
    wording: PromptWording = "released",
    add_generation_prompt: bool = False,
) -> Iterator[Segment]:
    """Yield the segments of a conversation.

    Args:
        turns: the messages; each has at least one block.
        layouts: what is shown of each picture and clip, in prompt order.
        wording: what is said around media.
        add_generation_prompt: end with `Assistant:`, for the model to go on from.
    """
    if wording == "legacy":
        turns = with_legacy_words(turns)
    yield StartSegment()
    text: list[Piece] = []
    media = enumerate(layouts)
    first_user_turn = next((number for number, turn in enumerate(turns) if turn.role == "user"), -1)
    for number, turn in enumerate(turns):
        for item in _turn_items(turn, media, wording=wording, is_first=number == first_user_turn):
            if isinstance(item, Piece):
                text.append(item)
                continue
            yield from _flush(text)
            yield item
        text.append(Piece("\n", TokenRole.TEMPLATE))
    if add_generation_prompt:
        text.append(Piece(GENERATION_PROMPT, TokenRole.TEMPLATE))
    yield from _flush(text)


def _turn_items(
    turn: Turn, media: Iterator[tuple[int, Layout]], *, wording: PromptWording, is_first: bool
) -> Iterator[Piece | ImageSegment | EndSegment]:
    role = SPEAKERS[turn.role]
    is_learned = role is TokenRole.ASSISTANT
    starts_with_image = isinstance(turn.blocks[0], ImageRef)
    yield Piece(f"{turn.role.capitalize()}:", TokenRole.TEMPLATE)
    if not starts_with_image:
        yield Piece(" ", role if is_learned else TokenRole.TEMPLATE, is_learned)
    for place, block in enumerate(turn.blocks):
        if isinstance(block, str):
            yield Piece(block, role, is_learned)
            continue
        number, layout = next(media)
        if isinstance(layout, Grid):
            yield ImageSegment(layout, number)
        else:
            introduces = has_intro(turn, place, is_first_user_turn=is_first, wording=wording)
            yield from _clip_items(number, layout, wording=wording, introduces=introduces)
    yield EndSegment(role, is_learned)


def _clip_items(
    number: int, frames: Frames, *, wording: PromptWording, introduces: bool
) -> Iterator[Piece | ImageSegment]:
    if introduces:
        intro = video_intro(len(frames.slots), frames.duration_s, wording=wording)
        yield Piece(intro, TokenRole.TEMPLATE)
    for tiles in frames.slots:
        yield Piece(frame_caption(frames.times_s[tiles[0]], wording=wording), TokenRole.TEMPLATE)
        yield ImageSegment(WHOLE, number)
    if wording == "released":
        yield Piece(RELEASED_OUTRO, TokenRole.TEMPLATE)


def _flush(text: list[Piece]) -> Iterator[TextSegment]:
    if text:
        yield TextSegment(tuple(text))
        text.clear()
