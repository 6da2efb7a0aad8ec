"""Conversations to arrays: ids, positions, scopes and targets.

In: a `Conversation` and what of its media is shown (from headers); or a `Sample`. Out: an `EncodedConversation`, an
`Example`. Blocks of image tokens are spliced in by id rather than written out as text and encoded, with equal ids.

A sample of several conversations becomes a tree: their common beginning, up to the first user turn's last picture or
frame, stands once (the trunk) and what follows in each stands beside it (a branch). Positions in a branch go on from
the trunk's end. A target is a triple (predict_from, target_id, weight), so a trunk token may predict for many branches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from smolvlm.encoding.chat import EndSegment, ImageSegment, Segment, StartSegment, TextSegment, TokenRole, render
from smolvlm.encoding.tokens import PromptTokens, TextEncoder
from smolvlm.encoding.tree import scope_ends
from smolvlm.encoding.video_words import PromptWording
from smolvlm.errors import SampleError
from smolvlm.records import Conversation, Example, Grid, ImageRef, Layout, Lengths, Media, Sample, TileRef, Turn

LossWeighting = Literal["token", "sample", "sqrt"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedConversation:
    """One conversation as arrays, standing alone."""

    input_ids: Int32[np.ndarray, " seq"]
    roles: UInt8[np.ndarray, " seq"]
    learned: Bool[np.ndarray, " seq"]
    media: tuple[Media, ...]
    """Pictures and clips in prompt order (one may occur twice)."""
    layouts: tuple[Layout, ...]
    prefix_tokens: int
    """End of the first user turn's last picture or frame; 0 where that turn has none."""
    prefix_media: int


class Encoder:
    """Turns conversations into arrays with one checkpoint's tokens. Stateless but for a cache of short texts."""

    def __init__(
        self,
        *,
        tokens: PromptTokens,
        text: TextEncoder,
        wording: PromptWording = "released",
        loss_weighting: LossWeighting = "token",
    ) -> None:
        self.tokens = tokens
        self._text = text
        self._wording: PromptWording = wording
        self.loss_weighting: LossWeighting = loss_weighting

    def encode_turns(
        self, turns: Sequence[Turn], *, layouts: Sequence[Layout], add_generation_prompt: bool = False
    ) -> EncodedConversation:
        """Encode one conversation.

        Args:
            turns: its messages.
            layouts: what is shown of each of its pictures and clips, in prompt order.
            add_generation_prompt: end with `Assistant:` (for generation).
        """
        ids: list[int] = []
        roles: list[int] = []
        learned: list[bool] = []
        is_user_turn_over = False
        prefix_tokens = prefix_media = 0
        for segment in render(turns, layouts, wording=self._wording, add_generation_prompt=add_generation_prompt):
            new_ids, new_roles, new_learned = self._segment(segment)
            ids += new_ids
            roles += new_roles
            learned += new_learned
            if isinstance(segment, EndSegment):
                is_user_turn_over |= segment.role is TokenRole.USER
            elif isinstance(segment, ImageSegment) and not is_user_turn_over:
                prefix_tokens, prefix_media = len(ids), segment.medium + 1
        return EncodedConversation(
            input_ids=np.array(ids, np.int32),
            roles=np.array(roles, np.uint8),
            learned=np.array(learned, bool),
            media=tuple(block for turn in turns for block in turn.blocks if not isinstance(block, str)),
            layouts=tuple(layouts),
            prefix_tokens=prefix_tokens,
            prefix_media=prefix_media,
        )

    def _segment(self, segment: Segment) -> tuple[list[int], list[int], list[bool]]:
        match segment:
            case StartSegment():
                return [self.tokens.start], [TokenRole.TEMPLATE], [False]
            case EndSegment(role, is_learned):
                return [self.tokens.end_of_utterance], [role], [is_learned]
            case ImageSegment(grid):
                ids = image_block(self.tokens, grid)
                return ids, [TokenRole.IMAGE] * len(ids), [False] * len(ids)
            case TextSegment(pieces):
                ids, offsets = self._text("".join(piece.text for piece in pieces))
                owner: list[int] = []
                for number, piece in enumerate(pieces):
                    owner += [number] * len(piece.text)
                # A token belongs to the speaker of its last character: " The" after "Assistant:" is the assistant's.
                owners = [pieces[owner[max(end - 1, 0)]] for _, end in offsets]
                return list(ids), [piece.role for piece in owners], [piece.is_learned for piece in owners]

    def lengths(self, conversation: Conversation, *, layouts: Sequence[Layout]) -> Lengths:
        """Return the exact sizes of a conversation; `layouts` come from headers, no pixel is decoded."""
        encoded = self.encode_turns(conversation.turns, layouts=layouts)
        key = b""
        if encoded.prefix_tokens:
            digest = blake2b(encoded.input_ids[: encoded.prefix_tokens].tobytes(), digest_size=16)
            for medium in encoded.media[: encoded.prefix_media]:
                digest.update(blake2b(media_identity(medium), digest_size=16).digest())
            key = digest.digest()
        return Lengths(
            num_tokens=len(encoded.input_ids),
            num_tiles=sum(layout.num_tiles for layout in layouts),
            num_supervised_tokens=int(encoded.learned.sum()),
            prefix_tokens=encoded.prefix_tokens,
            prefix_key=key,
            prefix_tiles=sum(layout.num_tiles for layout in encoded.layouts[: encoded.prefix_media]),
        )

    def encode(self, sample: Sample, *, layouts: Sequence[Sequence[Layout]]) -> Example:
        """Encode a sample; several conversations become a tree over their common prefix.

        Args:
            sample: one conversation, or several with equal prefix keys.
            layouts: for each conversation, what is shown of each of its pictures and clips.

        Raises:
            SampleError: a conversation supervises no token.
            ValueError: the conversations do not share their prefix.
        """
        parts = [
            self.encode_turns(conversation.turns, layouts=own)
            for conversation, own in zip(sample.conversations, layouts, strict=True)
        ]
        for conversation, part in zip(sample.conversations, parts, strict=True):
            if not part.learned.any():
                raise SampleError(
                    "nothing in this row is learned: no assistant turn with text",
                    where=conversation.where,
                    fix="give the row an answer, or set `on_bad_sample: skip`",
                )
        trunk = parts[0].prefix_tokens if len(parts) > 1 else 0
        for part in parts[1:]:
            if not np.array_equal(part.input_ids[:trunk], parts[0].input_ids[:trunk]):
                raise ValueError("the conversations of a tree must begin with the same tokens")
            if _prefix_media(part) != _prefix_media(parts[0]):
                raise ValueError("the conversations of a tree must begin with the same pictures and clips")
        return _assemble(sample, parts, trunk=trunk, loss_weighting=self.loss_weighting)


def image_block(tokens: PromptTokens, grid: Grid) -> list[int]:
    """Return the ids that stand for one picture: tags, image tokens and newlines (FORMATS: one tile, R x C tiles)."""
    places = [tokens.image] * tokens.tokens_per_tile
    ids: list[int] = []
    for row in range(1, grid.rows + 1):
        for column in range(1, grid.columns + 1):
            ids += [tokens.image_boundary, *tokens.row_column[row, column], *places]
        ids += tokens.row_end if row < grid.rows else tokens.last_row_end
    return [*ids, tokens.image_boundary, *tokens.global_view, *places, tokens.image_boundary]


def media_identity(medium: Media) -> bytes:
    """Return bytes that are equal for equal media: the path (and place in it), or a digest of the row's bytes."""
    if isinstance(medium, ImageRef) or not medium.frames:
        own = _file_identity(medium.path, medium.data, medium.span)
    else:
        own = blake2b(b"".join(media_identity(frame) + b"\0" for frame in medium.frames), digest_size=16).digest()
    if isinstance(medium, ImageRef):
        return own
    return b"v" + repr((medium.source_fps, medium.start_s, medium.end_s)).encode() + own


def _file_identity(path: Path | None, data: bytes | None, span: tuple[int, int] | None) -> bytes:
    if path is not None:
        return b"p" + f"{path}\0{span or ''}".encode()
    return b"d" + blake2b(data or b"", digest_size=16).digest()


def _prefix_media(part: EncodedConversation) -> list[bytes]:
    return [media_identity(medium) for medium in part.media[: part.prefix_media]]


def target_weight(num_supervised_tokens: int, weighting: LossWeighting) -> float:
    """Return the weight of each supervised token of a conversation that has so many."""
    match weighting:
        case "token":
            return 1.0
        case "sample":
            return 1.0 / num_supervised_tokens
        case "sqrt":
            return num_supervised_tokens**-0.5


def _assemble(
    sample: Sample, parts: Sequence[EncodedConversation], *, trunk: int, loss_weighting: LossWeighting
) -> Example:
    branches = [part.input_ids[trunk:] for part in parts]
    branch_lengths = [len(branch) for branch in branches]
    starts = trunk + np.concatenate([[0], np.cumsum(branch_lengths)[:-1]]).astype(int)
    slots, media, layouts = _tile_slots(parts)
    predict_from, target_ids, weights, owner = [], [], [], []
    for number, (part, start) in enumerate(zip(parts, starts, strict=True)):
        positions = np.flatnonzero(part.learned)
        before = positions - 1
        predict_from.append(np.where(before < trunk, before, before - trunk + start))
        target_ids.append(part.input_ids[positions])
        weights.append(np.full(len(positions), target_weight(len(positions), loss_weighting), np.float32))
        owner.append(np.full(len(positions), number))
    position_ids = [np.arange(trunk), *(np.arange(trunk, trunk + length) for length in branch_lengths)]
    return Example(
        input_ids=np.concatenate([parts[0].input_ids[:trunk], *branches]),
        position_ids=np.concatenate(position_ids).astype(np.int32),
        scope_end=scope_ends(branch_lengths, trunk_length=trunk),
        predict_from=np.concatenate(predict_from).astype(np.int32),
        target_ids=np.concatenate(target_ids),
        target_weights=np.concatenate(weights),
        target_conversation=np.concatenate(owner).astype(np.int32),
        media=media,
        layouts=layouts,
        tiles=slots,
        learned=np.concatenate([parts[0].learned[:trunk], *(part.learned[trunk:] for part in parts)]),
        roles=np.concatenate([parts[0].roles[:trunk], *(part.roles[trunk:] for part in parts)]),
        conversation_starts=tuple(int(start) for start in starts),
        where=tuple(conversation.where for conversation in sample.conversations),
        sources=tuple(conversation.source for conversation in sample.conversations),
    )


def _tile_slots(
    parts: Sequence[EncodedConversation],
) -> tuple[tuple[TileRef, ...], tuple[Media, ...], tuple[Layout, ...]]:
    """List the tile of every image slot in sequence order, and the distinct media; the trunk's stand once."""
    places: dict[bytes, int] = {}
    media: list[Media] = []
    layouts: list[Layout] = []
    slots: list[TileRef] = []
    shared = parts[0].prefix_media if len(parts) > 1 else 0
    for number, part in enumerate(parts):
        first = shared if number else 0
        for medium, layout in zip(part.media[first:], part.layouts[first:], strict=True):
            place = places.setdefault(media_identity(medium), len(media))
            if place == len(media):
                media.append(medium)
                layouts.append(layout)
            slots += [TileRef(medium=place, tile=tile) for tile in range(layout.num_tiles)]
    return tuple(slots), tuple(media), tuple(layouts)
