"""A conversation as the model reads it: pieces of text, special tokens and places for pictures.

In: turns. Out: segments, in order. The wording is the released chat template's, byte for byte (tests/parity compares
the two): `<|im_start|>` once; then a message as `Role:` (a space after the colon unless a picture comes first), its
blocks, `<end_of_utterance>` and a newline. The writer knows which characters the assistant says, so labels need no
searching: exactly the assistant's text and its `<end_of_utterance>` are learned.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from smolvlm.records import ImageRef, Turn


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
    """The place of a picture."""

    image: ImageRef


Segment = TextSegment | StartSegment | EndSegment | ImageSegment


def render(turns: Sequence[Turn], *, add_generation_prompt: bool = False) -> Iterator[Segment]:
    """Yield the segments of a conversation.

    Args:
        turns: the messages; each has at least one block.
        add_generation_prompt: end with `Assistant:`, for the model to go on from.
    """
    yield StartSegment()
    text: list[Piece] = []
    for turn in turns:
        for item in _turn_items(turn):
            if isinstance(item, Piece):
                text.append(item)
                continue
            yield from _flush(text)
            yield item
        text.append(Piece("\n", TokenRole.TEMPLATE))
    if add_generation_prompt:
        text.append(Piece(GENERATION_PROMPT, TokenRole.TEMPLATE))
    yield from _flush(text)


def _turn_items(turn: Turn) -> Iterable[Piece | ImageSegment | EndSegment]:
    role = SPEAKERS[turn.role]
    is_learned = role is TokenRole.ASSISTANT
    starts_with_image = isinstance(turn.blocks[0], ImageRef)
    yield Piece(f"{turn.role.capitalize()}:" + ("" if starts_with_image else " "), TokenRole.TEMPLATE)
    for block in turn.blocks:
        yield ImageSegment(block) if isinstance(block, ImageRef) else Piece(block, role, is_learned)
    yield EndSegment(role, is_learned)


def _flush(text: list[Piece]) -> Iterator[TextSegment]:
    if text:
        yield TextSegment(tuple(text))
        text.clear()
