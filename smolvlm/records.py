"""The values that travel between rooms, in the order in which data becomes a training step.

    rows -> Conversation -> (Lengths -> Plan) -> Sample -> Example -> Pack -> model

A `Conversation` is one row. A `Sample` is what is trained as one unit: a conversation, or several that form a tree
because they begin with the same pictures. An `Example` is a sample as arrays; a `Pack` (`datasets/packs.py`, tensors)
is many examples laid end to end. Every record is frozen; nothing downstream may change what an earlier stage said.

Axis names: `seq` tokens of an example or a pack, `target` supervised tokens, `tile` square pixel tiles,
`slot` places in the text where a tile's features go.
"""

from dataclasses import dataclass
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
    """(offset, size in bytes) where the picture is a part of the file, as in a tar shard; None is the whole file."""

    @property
    def name(self) -> str:
        """What an error message calls the picture."""
        if self.path is None:
            return f"<{len(self.data or b'')} bytes in the row>"
        return str(self.path) if self.span is None else f"{self.path}, bytes {self.span[0]} to {sum(self.span)}"


Block = str | ImageRef
"""One piece of a turn: text, or a picture."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: Role
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """One row: the turns of one conversation, in order."""

    turns: tuple[Turn, ...]
    where: str
    """`file:row`, rows counted from 1: what errors and `samples.jsonl` name."""
    source: str
    """Name of the source in the mixture; evaluation reports by it."""
    references: tuple[str, ...] = ()
    """Further accepted answers to the last question, for evaluation (VQA accuracy); training uses the turns alone."""

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """The row's pictures in prompt order."""
        return tuple(block for turn in self.turns for block in turn.blocks if isinstance(block, ImageRef))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Conversations that are trained as one unit: a single one, or the branches of a tree with one shared beginning."""

    conversations: tuple[Conversation, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """How a picture is cut: `rows` x `columns` tiles and then one global view; 0 x 0 is the global view alone."""

    rows: int
    columns: int

    @property
    def num_tiles(self) -> int:
        return self.rows * self.columns + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """A conversation's exact sizes, known from its text and the headers of its pictures."""

    num_tokens: int
    num_tiles: int
    num_supervised_tokens: int
    prefix_tokens: int
    """Tokens up to the end of the first user turn's last picture: what a tree may share. 0 without pictures."""
    prefix_key: bytes
    """Equal keys <=> equal prefix tokens and equal pictures in them; empty without pictures."""
    prefix_tiles: int
    """Tiles within the prefix."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileRef:
    """One tile of one picture of an example."""

    image: int
    """Index into `Example.images`."""
    tile: int
    """0-based number of the tile within its picture, in prompt order (row by row, the global view last)."""


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
    images: tuple[ImageRef, ...]
    """Distinct pictures of the sample."""
    tiles: tuple[TileRef, ...]
    """Which tile fills each image slot, in sequence order; every slot is `tokens_per_tile` image tokens."""
    learned: Bool[np.ndarray, " seq"]
    """Tokens that are some target (for display; a trunk token may be the target of several branches)."""
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
