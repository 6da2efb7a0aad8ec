"""The exact size of every row before a pixel is decoded: from its text and the headers of its pictures.

In: conversations. Out: a `MeasuredSet`: rows that can be trained, their sizes as columns, and the grids of their
pictures. A missing, empty or foreign file, a decompression bomb, an answer that is not there and a row above the
budget are found here, before training starts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from smolvlm.datasets.bad_samples import BadSamples
from smolvlm.encoding.encode import Encoder, image_identity
from smolvlm.errors import SampleError
from smolvlm.media.geometry import TileSettings, grid_for
from smolvlm.media.images import header_size
from smolvlm.records import Conversation, Grid, ImageRef, Lengths


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a pack may hold."""

    max_tokens: int
    max_tiles: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthTable:
    """Sizes of many conversations, a column each (axis `row`)."""

    num_tokens: Int64[np.ndarray, " row"]
    num_tiles: Int64[np.ndarray, " row"]
    num_supervised_tokens: Int64[np.ndarray, " row"]
    prefix_tokens: Int64[np.ndarray, " row"]
    prefix_tiles: Int64[np.ndarray, " row"]
    prefix_group: Int64[np.ndarray, " row"]
    """Rows with equal numbers begin with the same pictures; -1 for a row that can share nothing."""

    def __len__(self) -> int:
        return len(self.num_tokens)


@dataclass(frozen=True, kw_only=True, slots=True)
class MeasuredSet:
    """Rows that can be trained on, with all that planning needs."""

    conversations: tuple[Conversation, ...]
    grids: tuple[tuple[Grid, ...], ...]
    lengths: LengthTable


class HeaderReader:
    """Grids of pictures, each header read once however many rows show the picture."""

    def __init__(self, settings: TileSettings) -> None:
        self._settings = settings
        self._grids: dict[bytes, Grid] = {}

    def grids(self, images: Iterable[ImageRef], *, where: str) -> tuple[Grid, ...]:
        """Return the grid of each picture.

        Raises:
            SampleError: a picture cannot be read; `where` names the row.
        """
        return tuple(self._grid(image, where=where) for image in images)

    def _grid(self, image: ImageRef, *, where: str) -> Grid:
        identity = image_identity(image)
        if identity not in self._grids:
            width, height = header_size(image, where=where)
            self._grids[identity] = grid_for(width, height, self._settings)
        return self._grids[identity]


def measure(
    conversations: Sequence[Conversation],
    *,
    encoder: Encoder,
    settings: TileSettings,
    budget: Budget,
    bad_samples: BadSamples,
) -> MeasuredSet:
    """Measure rows; those that cannot be trained go to `bad_samples`, which is settled at the end.

    Raises:
        SampleError: as `bad_samples` decides.
    """
    headers = HeaderReader(settings)
    kept: list[Conversation] = []
    grids: list[tuple[Grid, ...]] = []
    lengths: list[Lengths] = []

    def measured(conversation: Conversation) -> tuple[tuple[Grid, ...], Lengths]:
        own = headers.grids(conversation.images, where=conversation.where)
        sizes = encoder.lengths(conversation, grids=own)
        _check_sizes(sizes, budget, where=conversation.where)
        return own, sizes

    for conversation in conversations:
        found = bad_samples.attempt(lambda: measured(conversation), where=conversation.where)  # noqa: B023 - called at once
        if found is not None:
            kept.append(conversation)
            grids.append(found[0])
            lengths.append(found[1])
    bad_samples.settle()
    return MeasuredSet(conversations=tuple(kept), grids=tuple(grids), lengths=length_table(lengths))


def length_table(lengths: Sequence[Lengths]) -> LengthTable:
    """Turn rows of lengths into columns; equal prefix keys become equal group numbers."""
    groups: dict[bytes, int] = {}
    group = [groups.setdefault(size.prefix_key, len(groups)) if size.prefix_key else -1 for size in lengths]

    def column(values: Iterable[int]) -> Int64[np.ndarray, " row"]:
        return np.fromiter(values, np.int64, len(lengths))

    return LengthTable(
        num_tokens=column(size.num_tokens for size in lengths),
        num_tiles=column(size.num_tiles for size in lengths),
        num_supervised_tokens=column(size.num_supervised_tokens for size in lengths),
        prefix_tokens=column(size.prefix_tokens for size in lengths),
        prefix_tiles=column(size.prefix_tiles for size in lengths),
        prefix_group=np.array(group, np.int64),
    )


def _check_sizes(sizes: Lengths, budget: Budget, *, where: str) -> None:
    if not sizes.num_supervised_tokens:
        raise SampleError(
            "nothing in this row is learned: no assistant turn with text", where=where, fix="give the row an answer"
        )
    if sizes.num_tokens > budget.max_tokens:
        raise SampleError(
            f"{sizes.num_tokens} tokens, a pack holds data.max_tokens_per_pack={budget.max_tokens}",
            where=where,
            fix=f"set data.max_tokens_per_pack to {sizes.num_tokens} or more, or shorten the row",
        )
    if sizes.num_tiles > budget.max_tiles:
        raise SampleError(
            f"{sizes.num_tiles} tiles, a pack holds data.max_tiles_per_pack={budget.max_tiles}",
            where=where,
            fix=f"set data.max_tiles_per_pack to {sizes.num_tiles} or more, or data.image_splitting to false",
        )
