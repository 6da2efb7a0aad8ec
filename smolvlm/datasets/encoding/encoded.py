"""Encoded conversations, and how several become one example: arrays laid beside each other.

In: conversations as arrays, each standing alone. Out: an `Example`, the common beginning once.
Which beginning that is, the caller says: the first user turn's media for questions about one
picture, everything before the answers for a row of several branches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int32, UInt8

from smolvlm.datasets.encoding.tree import scope_ends
from smolvlm.records import Conversation, Example, ImageRef, Layout, Media, TileRef

LossWeighting = Literal["token", "sample", "sqrt"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodedConversation:
    """One conversation as arrays, standing alone."""

    input_ids: Int32[np.ndarray, " seq"]
    roles: UInt8[np.ndarray, " seq"]
    weights: Float32[np.ndarray, " seq"]
    """Of each token: what its turn's loss is multiplied by; 0 where it is not learned."""
    media: tuple[Media, ...]
    """Pictures and clips in prompt order (one may occur twice)."""
    layouts: tuple[Layout, ...]
    prefix_tokens: int
    """End of the first user turn's last picture or frame; 0 where that turn has none."""
    prefix_media: int

    @property
    def learned(self) -> Bool[np.ndarray, " seq"]:
        """Which tokens are learned."""
        return self.weights > 0


def common_beginning(parts: Sequence[EncodedConversation]) -> int:
    """Return how many tokens a row's branches share: all before the first that either learns."""
    return min(int(part.learned.argmax()) for part in parts)


def media_identity(medium: Media) -> bytes:
    """Return bytes that are equal for equal media.

    They are the path (and place in it), or a digest of the row's bytes.
    """
    if isinstance(medium, ImageRef) or not medium.frames:
        identity = _file_identity(medium.path, medium.data, medium.span)
    else:
        identity = blake2b(
            b"".join(media_identity(frame) + b"\0" for frame in medium.frames), digest_size=16
        ).digest()
    if isinstance(medium, ImageRef):
        return identity
    return b"v" + repr((medium.source_fps, medium.start_s, medium.end_s)).encode() + identity


def _file_identity(path: Path | None, data: bytes | None, span: tuple[int, int] | None) -> bytes:
    if path is not None:
        # Names that are no UTF-8 have half surrogates in them.
        return b"p" + f"{path}\0{span or ''}".encode(errors="surrogatepass")
    return b"d" + blake2b(data or b"", digest_size=16).digest()


def prefix_media(part: EncodedConversation) -> list[bytes]:
    """Return the identities of the media that a conversation begins with."""
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


def assemble(
    owners: Sequence[Conversation],
    parts: Sequence[EncodedConversation],
    *,
    trunk: int,
    num_shared_media: int,
    loss_weighting: LossWeighting,
) -> Example:
    """Lay conversations beside each other, their common beginning once.

    Args:
        owners: the row of each.
        parts: the conversations.
        trunk: tokens of the common beginning.
        num_shared_media: media in it.
        loss_weighting: of each conversation's targets.
    """
    branches = [part.input_ids[trunk:] for part in parts]
    branch_lengths = [len(branch) for branch in branches]
    starts = trunk + np.concatenate([[0], np.cumsum(branch_lengths)[:-1]]).astype(int)
    tiles, slot_sizes, media, layouts = _tile_slots(parts, num_shared=num_shared_media)
    predict_from, target_ids, weights, owner = [], [], [], []
    for number, (part, start) in enumerate(zip(parts, starts, strict=True)):
        positions = np.flatnonzero(part.learned)
        before = positions - 1
        predict_from.append(np.where(before < trunk, before, before - trunk + start))
        target_ids.append(part.input_ids[positions])
        weight = np.float32(target_weight(len(positions), loss_weighting))
        weights.append(part.weights[positions] * weight)
        owner.append(np.full(len(positions), number))
    position_ids = [
        np.arange(trunk),
        *(np.arange(trunk, trunk + length) for length in branch_lengths),
    ]
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
        tiles=tiles,
        slot_sizes=slot_sizes,
        learned=np.concatenate(
            [parts[0].learned[:trunk], *(part.learned[trunk:] for part in parts)]
        ),
        roles=np.concatenate([parts[0].roles[:trunk], *(part.roles[trunk:] for part in parts)]),
        conversation_starts=tuple(int(start) for start in starts),
        where=tuple(conversation.where for conversation in owners),
        sources=tuple(conversation.source for conversation in owners),
    )


def _tile_slots(
    parts: Sequence[EncodedConversation], *, num_shared: int
) -> tuple[tuple[TileRef, ...], tuple[int, ...], tuple[Media, ...], tuple[Layout, ...]]:
    """List the image slots' tiles in sequence order, how many each has, and the distinct media.

    The first `num_shared` media, which are the trunk's, stand once.
    """
    places: dict[bytes, int] = {}
    media: list[Media] = []
    layouts: list[Layout] = []
    tiles: list[TileRef] = []
    sizes: list[int] = []
    for number, part in enumerate(parts):
        first = num_shared if number else 0
        for medium, layout in zip(part.media[first:], part.layouts[first:], strict=True):
            place = places.setdefault(media_identity(medium), len(media))
            if place == len(media):
                media.append(medium)
                layouts.append(layout)
            tiles += [TileRef(medium=place, tile=tile) for tile in range(layout.num_tiles)]
            sizes += [len(slot) for slot in layout.slots]
    return tuple(tiles), tuple(sizes), tuple(media), tuple(layouts)
