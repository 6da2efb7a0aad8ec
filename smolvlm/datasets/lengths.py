"""The exact size of every row before a pixel is decoded: from its text and the headers of its media.

In: conversations, one at a time. Out: columns of sizes; planning, dealing and statistics work on these alone. A
missing, empty or foreign file, a decompression bomb, an answer that is not there: each is a row with an error here,
before training starts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32

from smolvlm.encoding.encode import Encoder, image_identity
from smolvlm.errors import SampleError
from smolvlm.media.geometry import TileSettings, grid_for
from smolvlm.media.images import header_size
from smolvlm.records import Conversation, Grid, ImageRef

MODALITIES = ("text", "image", "multiimage", "video")
HEADERS_KEPT = 65536
"""Pictures whose grid is remembered: the rows about one picture are mostly neighbours."""

SIZES = pa.schema(
    [
        ("row", pa.int32()),
        ("num_tokens", pa.int32()),
        ("num_tiles", pa.int32()),
        ("num_supervised_tokens", pa.int32()),
        ("prefix_tokens", pa.int32()),
        ("prefix_tiles", pa.int32()),
        ("prefix_key", pa.int64()),
        ("modality", pa.int8()),
        ("where", pa.string()),
        ("error", pa.string()),
        ("fix", pa.string()),
    ]
)
"""Sizes of the rows of one source, as columns; `where`, `error` and `fix` are null but for rows that cannot be used."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a pack may hold."""

    max_tokens: int
    max_tiles: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LengthTable:
    """Sizes of many conversations, a column each (axis `row`)."""

    num_tokens: Int32[np.ndarray, " row"]
    num_tiles: Int32[np.ndarray, " row"]
    num_supervised_tokens: Int32[np.ndarray, " row"]
    prefix_tokens: Int32[np.ndarray, " row"]
    prefix_tiles: Int32[np.ndarray, " row"]
    prefix_group: Int32[np.ndarray, " row"]
    """Rows with equal numbers begin with the same pictures; -1 for a row that can share nothing."""
    repeats: Float32[np.ndarray, " row"]
    """How often an epoch sees the row; of 2.25 the quarter is drawn anew for each epoch."""

    def __len__(self) -> int:
        return len(self.num_tokens)


class HeaderReader:
    """Grids of pictures, each header read once for a while."""

    def __init__(self, settings: TileSettings) -> None:
        self._settings = settings
        self._grids: dict[bytes, Grid] = {}

    def __getstate__(self) -> TileSettings:
        return self._settings

    def __setstate__(self, settings: TileSettings) -> None:
        self._settings, self._grids = settings, {}

    def grids(self, images: Iterable[ImageRef], *, where: str) -> tuple[Grid, ...]:
        """Return the grid of each picture.

        Raises:
            SampleError: a picture cannot be read; `where` names the row.
        """
        return tuple(self._grid(image, where=where) for image in images)

    def _grid(self, image: ImageRef, *, where: str) -> Grid:
        identity = image_identity(image)
        if identity not in self._grids:
            if len(self._grids) >= HEADERS_KEPT:
                self._grids.clear()
            width, height = header_size(image, where=where)
            self._grids[identity] = grid_for(width, height, self._settings)
        return self._grids[identity]


class Meter:
    """Measures conversations for one checkpoint's prompts."""

    def __init__(self, encoder: Encoder, settings: TileSettings) -> None:
        self._encoder = encoder
        self._headers = HeaderReader(settings)

    def sizes(self, conversations: Sequence[Conversation], rows: Iterable[int]) -> pa.Table:
        """Return the sizes of some rows; `SIZES` is its schema.

        Args:
            conversations: of one source; reading one may raise SampleError.
            rows: numbers in `conversations`; what the `row` column holds.
        """
        columns: dict[str, list[Any]] = {name: [] for name in SIZES.names}
        for row in rows:
            try:
                found = self._measured(conversations[row])
            except SampleError as error:
                found = {"where": error.where, "error": error.what, "fix": error.fix}
            columns["row"].append(row)
            for name in SIZES.names[1:]:
                columns[name].append(found.get(name))
        return pa.table(columns, schema=SIZES)

    def _measured(self, conversation: Conversation) -> Mapping[str, int]:
        grids = self._headers.grids(conversation.images, where=conversation.where)
        sizes = self._encoder.lengths(conversation, grids=grids)
        if not sizes.num_supervised_tokens:
            raise SampleError(
                "nothing in this row is learned: no assistant turn with text",
                where=conversation.where,
                fix="give the row an answer",
            )
        return {
            "num_tokens": sizes.num_tokens,
            "num_tiles": sizes.num_tiles,
            "num_supervised_tokens": sizes.num_supervised_tokens,
            "prefix_tokens": sizes.prefix_tokens,
            "prefix_tiles": sizes.prefix_tiles,
            # Of the key's 16 bytes 8 are kept; should two ever meet, the encoder refuses the tree.
            "prefix_key": int.from_bytes(sizes.prefix_key[:8], "little", signed=True) if sizes.prefix_key else 0,
            "modality": min(len(conversation.images), 2),
        }


def over_budget(sizes: Mapping[str, int], budget: Budget, *, where: str) -> SampleError | None:
    """Return what is wrong with a row of these sizes, if it is larger than a pack."""
    if sizes["num_tokens"] > budget.max_tokens:
        return SampleError(
            f"{sizes['num_tokens']} tokens, a pack holds data.max_tokens_per_pack={budget.max_tokens}",
            where=where,
            fix=f"set data.max_tokens_per_pack to {sizes['num_tokens']} or more, or shorten the row",
        )
    if sizes["num_tiles"] > budget.max_tiles:
        return SampleError(
            f"{sizes['num_tiles']} tiles, a pack holds data.max_tiles_per_pack={budget.max_tiles}",
            where=where,
            fix=f"set data.max_tiles_per_pack to {sizes['num_tiles']} or more, or data.image_splitting to false",
        )
    return None
