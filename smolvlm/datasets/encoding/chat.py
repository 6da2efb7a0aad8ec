"""A conversation as the model reads it: text, special tokens, places for pictures and frames.

In: turns, what of their media is shown, and the checkpoint's chat template (`split_template.py`).
Out: segments, in order. The wording is the template's, byte for byte. A clip is a sentence about
it, then each frame under its time. Frames that are averaged stand under the time of the first of
them, and the sentence counts the places, not the frames: word for word what is said about a clip of
only those first frames, which every checkpoint knows.

The template says which characters the assistant says, so labels need no searching: exactly the
assistant's text and the token that ends it are learned, and nothing of what is said about a clip.
Under `data.supervise: text` the user's own words and the token that ends them are learned too, and
nothing else: no role label, no newline of the template, no image token or tag.
What the template writes between its generation prompt and the text counts as the assistant's, such
as the space between `Assistant:` and the text: generation goes on from the colon, so the model must
say it. (Before a word it is part of the word's first token, before a digit a token of its own.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from smolvlm.datasets.encoding.split_template import ChatTemplate
from smolvlm.datasets.encoding.template_items import (
    BlockKind,
    BlockPlace,
    Shape,
    TemplateItem,
    Words,
)
from smolvlm.datasets.encoding.video_words import (
    RELEASED_OUTRO,
    PromptWording,
    frame_caption,
    has_intro,
    video_intro,
    with_legacy_words,
)
from smolvlm.records import Block, Frames, Grid, ImageRef, Layout, Role, Turn

Supervise = Literal["assistant", "text"]
"""Whose words are learned: the assistant's, or the user's too."""


class TokenRole(IntEnum):
    """Who a token belongs to; the pages colour by it."""

    TEMPLATE = 0
    SYSTEM = 1
    USER = 2
    ASSISTANT = 3
    IMAGE = 4


SPEAKERS = {"system": TokenRole.SYSTEM, "user": TokenRole.USER, "assistant": TokenRole.ASSISTANT}


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters of one speaker within a stretch of text."""

    text: str
    role: TokenRole
    is_learned: bool = False
    weight: float = 1.0
    """Of what is learned: the turn's."""


@dataclass(frozen=True, slots=True)
class TextSegment:
    """Text between two special tokens: encoded as one string."""

    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class TokenSegment:
    """A special token of the template."""

    token: str
    role: TokenRole = TokenRole.TEMPLATE
    is_learned: bool = False
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class ImageSegment:
    """The place of a picture, or of one frame of a clip, or of several that are averaged."""

    grid: Grid
    medium: int
    """Which of the conversation's media it shows, counted from 0 in prompt order."""
    is_prefix: bool = False
    """Whether it stands in the first user turn, so that a tree may share what is up to here."""


@dataclass(frozen=True, slots=True)
class Supervision:
    """What is learned of a conversation."""

    words: Supervise = "assistant"
    first_turn: int = 0
    """Nothing is learned of the turns before it."""


Segment = TextSegment | TokenSegment | ImageSegment

WHOLE = Grid(rows=0, columns=0)
"""A frame is never cut."""


def shape_of(turns: Sequence[Turn]) -> Shape:
    """Return what a template is asked for: of each turn the role and the kinds of its blocks."""
    shape: list[tuple[Role, tuple[BlockKind, ...]]] = [
        (turn.role, tuple(_kind_of(block) for block in turn.blocks)) for turn in turns
    ]
    return tuple(shape)


def _kind_of(block: Block) -> BlockKind:
    return "image" if isinstance(block, ImageRef) else "text"


def render(
    turns: Sequence[Turn],
    layouts: Sequence[Layout],
    *,
    template: ChatTemplate,
    wording: PromptWording = "released",
    supervision: Supervision = Supervision(),
    add_generation_prompt: bool = False,
) -> Iterator[Segment]:
    """Yield the segments of a conversation.

    Args:
        turns: the messages; each has at least one block.
        layouts: what is shown of each picture and clip, in prompt order.
        template: the checkpoint's.
        wording: what is said around media.
        supervision: what is learned.
        add_generation_prompt: end with what the model goes on from.
    """
    first_turn = supervision.first_turn
    if wording == "legacy":
        num_turns = len(turns)
        turns = with_legacy_words(turns)
        first_turn += len(turns) - num_turns if first_turn else 0
    text: list[Piece] = []
    for item in _items(
        turns,
        layouts,
        items=template.items(shape_of(turns), add_generation_prompt=add_generation_prompt),
        wording=wording,
        learns=_Learning(turns, first_turn, supervision.words),
    ):
        if isinstance(item, Piece):
            text.append(item)
            continue
        if text:
            yield TextSegment(tuple(text))
            text.clear()
        yield item
    if text:
        yield TextSegment(tuple(text))


def _items(
    turns: Sequence[Turn],
    layouts: Sequence[Layout],
    *,
    items: Sequence[TemplateItem],
    wording: PromptWording,
    learns: "_Learning",
) -> Iterator[Piece | TokenSegment | ImageSegment]:
    """Yield what the template writes, and what goes into it, in order."""
    blocks = [(place, block) for turn in turns for place, block in enumerate(turn.blocks)]
    media = enumerate(layouts)
    first_user_turn = next((number for number, turn in enumerate(turns) if turn.role == "user"), -1)
    for item in items:
        if isinstance(item, BlockPlace):
            place, block = blocks[item.block]
            if isinstance(block, str):
                turn = item.turn if item.is_learned or learns.user_turn(item.turn) else None
                yield Piece(item.trimmed(block), SPEAKERS[turns[item.turn].role], *learns(turn))
                continue
            number, layout = next(media)
            is_prefix = item.turn <= first_user_turn
            if isinstance(layout, Grid):
                yield ImageSegment(layout, number, is_prefix)
                continue
            turn = turns[item.turn]
            is_first = item.turn == first_user_turn
            introduces = has_intro(turn, place, is_first_user_turn=is_first, wording=wording)
            for shown in _clip_items(layout, wording=wording, introduces=introduces):
                if isinstance(shown, str):
                    yield Piece(shown, TokenRole.TEMPLATE)
                else:
                    yield ImageSegment(shown, number, is_prefix)
            continue
        learned_in = item.learned_in
        if isinstance(item, Words):
            role = TokenRole.TEMPLATE if learned_in is None else TokenRole.ASSISTANT
            yield Piece(item.text, role, *learns(learned_in))
        else:
            role = TokenRole.TEMPLATE if item.ends is None else SPEAKERS[turns[item.ends].role]
            if item.ends is not None and learns.user_turn(item.ends):
                learned_in = item.ends
            yield TokenSegment(item.token, role, *learns(learned_in))


@dataclass(frozen=True, slots=True)
class _Learning:
    """What is learned of a conversation's turns."""

    turns: Sequence[Turn]
    first_turn: int
    words: Supervise

    def __call__(self, turn: int | None) -> tuple[bool, float]:
        """Return whether words of a turn are learned, and their weight; None is of no turn."""
        if turn is None or turn < self.first_turn:
            return False, 1.0
        weight = self.turns[turn].weight
        return weight > 0, weight

    def user_turn(self, turn: int) -> bool:
        """Say whether a turn is a user's whose words are learned."""
        return self.words == "text" and self.turns[turn].role == "user"


def _clip_items(
    frames: Frames, *, wording: PromptWording, introduces: bool
) -> Iterator[str | Grid]:
    if introduces:
        yield video_intro(len(frames.slots), frames.duration_s, wording=wording)
    for tiles in frames.slots:
        yield frame_caption(frames.times_s[tiles[0]], wording=wording)
        yield WHOLE
    if wording == "released":
        yield RELEASED_OUTRO
