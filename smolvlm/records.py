"""The values that travel between rooms, in the order in which data becomes a training step.

    rows -> Conversation -> (Lengths -> Plan) -> Sample -> Example -> Pack -> model

A `Conversation` is one row. A `Sample` is what is trained as one unit: a conversation, or several
that form a tree because they begin with the same pictures or clips. An `Example` is a sample as
arrays; a `Pack` (tensors, in `datasets/packing/pack.py`) is many examples laid end to end. Every
record is frozen; nothing downstream may change what an earlier stage said.

Axis names: `seq` tokens of an example or a pack, `target` supervised tokens, `tile` square pixel
tiles, `slot` places in the text where a tile's features go, or the mean of several tiles'; `shown`
the tiles of all slots.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageRef:
    """A picture that a row names; nothing is opened until it is needed."""

    path: Path | None = None
    """The file, or None when the row carries the bytes."""
    data: bytes | None = None
    """The encoded bytes (JPEG, PNG, ...), or None when `path` is given."""
    span: tuple[int, int] | None = None
    """(offset, size in bytes) where the picture is a part of the file, as in a tar shard; None is
    the whole file."""
    url: str | None = None
    """The address that `path` is fetched from when it is first opened; None is a file of the row's
    own."""
    allow_private_url: bool = False
    """Whether that may be the address of a server which is not public."""

    @property
    def name(self) -> str:
        """What an error message calls the picture."""
        if self.url is not None:
            return self.url
        if self.path is None:
            return f"<{len(self.data or b'')} bytes in the row>"
        return (
            str(self.path)
            if self.span is None
            else f"{self.path}, bytes {self.span[0]} to {sum(self.span)}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoRef:
    """A clip that a row names: a file, or its frames as pictures; opened when it is needed."""

    path: Path | None = None
    """The file, or a folder of numbered pictures; None when the row carries the bytes or lists the
    frames."""
    data: bytes | None = None
    """The encoded bytes (MP4, WebM, ...) of the row."""
    span: tuple[int, int] | None = None
    """(offset, size in bytes) where the clip is a part of the file, as in a tar shard; None is the
    whole file."""
    url: str | None = None
    """The address that `path` is fetched from when it is first opened; None is a file of the row's
    own."""
    allow_private_url: bool = False
    """Whether that may be the address of a server which is not public."""
    frames: tuple[ImageRef, ...] = ()
    """Where the row lists the frames: a picture each, in order."""
    root: Path | None = field(default=None, compare=False)
    """Folder that links among a folder's frames may not leave; None is any."""
    source_fps: float = 1.0
    """Frames a second of a folder or a list; a file carries its own times."""
    start_s: float | None = None
    """Begin of the part that is shown, in seconds from the clip's first frame, wherever the file's
    clock begins; None is the clip's begin."""
    end_s: float | None = None
    """Its end, counted likewise; None is the clip's."""

    @property
    def name(self) -> str:
        """What an error message calls the clip."""
        if self.frames:
            return f"{self.frames[0].name} and {len(self.frames) - 1} more frames"
        return ImageRef(path=self.path, data=self.data, span=self.span, url=self.url).name


Media = ImageRef | VideoRef
"""What a place in the text may show."""
Block = str | ImageRef | VideoRef
"""One piece of a turn: text, a picture, or a clip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    blocks: tuple[Block, ...]
    weight: float = 1.0
    """What the loss of its learned tokens is multiplied by; 0 is not learned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """One row: the turns of one conversation, in order."""

    turns: tuple[Turn, ...]
    where: str
    """`file:row`, rows counted from 1: what errors and `samples.jsonl` name."""
    source: str
    """Name of the source in the mixture; evaluation reports by it."""
    references: tuple[str, ...] = ()
    """Further accepted answers to the last question, for evaluation (VQA accuracy); training uses
    the turns alone."""
    rejected: tuple[Turn, ...] = ()
    """Of a preference row: the whole conversation again as it goes in the worse case, `turns` being
    the better one; the two begin alike and part in an assistant's turn. Empty for any other row."""
    unread_keys: tuple[str, ...] = ()
    """Keys of the row, its turns and blocks that nothing was made of, sorted: `id`,
    `messages[].name`."""
    left_out_keys: tuple[str, ...] = ()
    """Keys of it that the source's `not_read` left out, sorted."""
    doubts: tuple[str, ...] = ()
    """What in it may be meant otherwise than it is read, in words."""
    has_unplaced_media: bool = False
    """Whether nothing in the text says where its media go: they stand in front of the first user
    turn."""

    @property
    def num_shared_turns(self) -> int:
        """How many turns the chosen and the rejected conversation share at their beginning."""
        pairs = zip(self.turns, self.rejected, strict=False)
        return next((number for number, (one, other) in enumerate(pairs) if one != other), 0)

    @property
    def branches(self) -> tuple[tuple[Turn, ...], ...]:
        """The conversations that the row trains, each in full: one, or chosen and rejected."""
        return (self.turns, self.rejected) if self.rejected else (self.turns,)

    @property
    def every_turn(self) -> tuple[Turn, ...]:
        """The turns of all branches, those that they share once."""
        return (*self.turns, *self.rejected[self.num_shared_turns :])

    @property
    def media(self) -> tuple[Media, ...]:
        """The row's pictures and clips in prompt order."""
        return tuple(
            block for turn in self.turns for block in turn.blocks if not isinstance(block, str)
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Conversations that are trained as one unit: one, or the branches of a tree."""

    conversations: tuple[Conversation, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """How a picture is cut: `rows` x `columns` tiles and then one global view; 0 x 0 is the global
    view alone."""

    rows: int
    columns: int

    @property
    def num_tiles(self) -> int:
        return self.rows * self.columns + 1

    @property
    def slots(self) -> tuple[range, ...]:
        """The tiles of each image slot: one each."""
        return tuple(range(tile, tile + 1) for tile in range(self.num_tiles))


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames:
    """Which frames of a clip are shown: one tile each, never cut."""

    numbers: tuple[int, ...]
    """Ascending and distinct, counted from 0 in the order of presentation."""
    times_s: tuple[float, ...]
    """When each is shown, in seconds from the clip's first frame."""
    duration_s: float
    """Of the whole clip: from its first frame's begin to its last frame's end."""
    frames_per_slot: int = 1
    """How many consecutive frames share one image slot, as the mean of their features."""

    @property
    def num_tiles(self) -> int:
        return len(self.numbers)

    @property
    def slots(self) -> tuple[range, ...]:
        """The tiles of each image slot: each frame in one slot, the last slot has the remainder.

        Five frames, two a slot, give 0 and 1, 2 and 3, 4.
        """
        size, end = self.frames_per_slot, self.num_tiles
        return tuple(range(first, min(first + size, end)) for first in range(0, end, size))


Layout = Grid | Frames
"""What of a picture or a clip is shown; known from headers, before a pixel is decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """A conversation's exact sizes, known from its text and the headers of its media."""

    num_tokens: int
    num_positions: int
    """Tokens of its longest way through: of a preference row without the shorter answer, else
    all."""
    num_tiles: int
    num_supervised_tokens: int
    prefix_tokens: int
    """Tokens up to the end of the first user turn's last picture or frame: what a tree may share. 0
    without media."""
    prefix_tiles: int
    """Tiles within the prefix."""
    prefix_key: bytes
    """Equal keys <=> equal prefix tokens and equal media in them; empty without media."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileRef:
    """One tile of one picture or clip of an example."""

    medium: int
    """Index into `Example.media`."""
    tile: int
    """0-based number of the tile within it, in prompt order: row by row and the global view last;
    frame by frame."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A sample as arrays: what the model will read and learn; pixels are still only named."""

    input_ids: Int32[np.ndarray, " seq"]
    position_ids: Int32[np.ndarray, " seq"]
    scope_end: Int32[np.ndarray, " seq"]
    """Query q sees key k <=> k <= q < scope_end[k]; counted within the example."""
    predict_from: Int32[np.ndarray, " target"]
    """Position whose hidden state predicts the target."""
    target_ids: Int32[np.ndarray, " target"]
    target_weights: Float32[np.ndarray, " target"]
    target_conversation: Int32[np.ndarray, " target"]
    """Which conversation of the sample each target belongs to."""
    media: tuple[Media, ...]
    """Distinct pictures and clips of the sample."""
    layouts: tuple[Layout, ...]
    """What of each is shown."""
    tiles: tuple[TileRef, ...]
    """The tiles that fill the image slots, in sequence order; every slot is `tokens_per_tile` image
    tokens."""
    slot_sizes: tuple[int, ...]
    """How many of `tiles` fill each slot: 1, or more where frames are averaged."""
    learned: Bool[np.ndarray, " seq"]
    """Tokens that are some target (for display; a trunk token may be the target of several
    branches)."""
    roles: UInt8[np.ndarray, " seq"]
    """`encoding.chat.TokenRole` of each token (for display)."""
    conversation_starts: tuple[int, ...]
    """Where each conversation's own tokens begin (its branch, or 0 for a plain conversation)."""
    where: tuple[str, ...]
    """`file:row` of each conversation."""
    sources: tuple[str, ...]
    """Source name of each conversation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedRow:
    """A row left out under `on_bad_sample: skip`."""

    where: str
    reason: str
