"""The exact size of every row, from its text and its media's headers: no pixel is decoded.

In: conversations, one at a time. Out: columns of sizes; planning, dealing and statistics work on
these alone. A missing, empty or foreign file, a decompression bomb, an answer that is not there:
each is a row with an error here, before training starts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int32

from smolvlm.datasets.encoding.encode import Encoder
from smolvlm.datasets.encoding.encoded import media_identity
from smolvlm.datasets.packing.row_digests import DIGESTS, content_digest, media_sizes_and_times
from smolvlm.errors import SampleError
from smolvlm.media.decode_time import decoding
from smolvlm.media.layout import layout_of
from smolvlm.media.settings import MediaSettings
from smolvlm.records import Conversation, Layout, Lengths, Media, VideoRef

MODALITIES = ("text", "image", "multiimage", "video")
HEADERS_KEPT = 65536
"""Media whose layout is remembered: the rows about one picture are mostly neighbours."""

_COLUMN_TYPES = {int: pa.int32(), bytes: pa.int64()}
"""A size, or a key: of its 16 bytes 8 are kept; should two ever meet, the encoder refuses the
tree."""
SIZES = pa.schema(
    [
        ("row", pa.int32()),
        *((field.name, _COLUMN_TYPES[field.type]) for field in fields(Lengths)),
        ("modality", pa.int8()),
        ("is_preference", pa.bool_()),
        *((name, pa.int64()) for name in DIGESTS),
        ("where", pa.string()),
        ("kind", pa.string()),
        ("error", pa.string()),
        ("fix", pa.string()),
    ]
)
"""Sizes of the rows of one source, as columns; `where`, `kind`, `error` and `fix` are null but for
rows that cannot be used."""


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
    """What is shown of pictures and clips, each header read once for a while."""

    def __init__(self, settings: MediaSettings) -> None:
        self._settings = settings
        self._layouts: dict[bytes, Layout] = {}

    def __getstate__(self) -> MediaSettings:
        return self._settings

    def __setstate__(self, settings: MediaSettings) -> None:
        self._settings, self._layouts = settings, {}

    def layouts(self, media: Iterable[Media]) -> tuple[Layout, ...]:
        """Return what is shown of each picture and clip.

        Raises:
            SampleError: one cannot be read.
        """
        return tuple(self._layout(medium) for medium in media)

    def _layout(self, medium: Media) -> Layout:
        identity = media_identity(medium)
        if identity not in self._layouts:
            if len(self._layouts) >= HEADERS_KEPT:
                self._layouts.clear()
            self._layouts[identity] = layout_of(medium, self._settings)
        return self._layouts[identity]


def modality_of(media: Sequence[Media]) -> int:
    """Return the number of a row's modality in `MODALITIES`: what the row holds decides."""
    if any(isinstance(medium, VideoRef) for medium in media):
        return MODALITIES.index("video")
    return min(len(media), MODALITIES.index("multiimage"))


class Meter:
    """Measures conversations for one checkpoint's prompts."""

    def __init__(self, encoder: Encoder, settings: MediaSettings) -> None:
        self._encoder = encoder
        self._headers = HeaderReader(settings)
        self._max_decode_s = settings.max_decode_s

    def sizes(
        self,
        conversations: Sequence[Conversation],
        rows: Iterable[int],
        *,
        media_root: Path | None = None,
    ) -> pa.Table:
        """Return the sizes and digests of some rows; `SIZES` is its schema.

        Args:
            conversations: of one source; reading one may raise SampleError.
            rows: numbers in `conversations`; what the `row` column holds.
            media_root: the source's folder of media.
        """
        columns: dict[str, list[object]] = {name: [] for name in SIZES.names}
        for row in rows:
            try:
                sizes = self._measured(conversations[row], media_root)
            except SampleError as error:
                if error.ends_run:
                    raise
                sizes = {
                    "where": error.where,
                    "kind": error.kind,
                    "error": error.what,
                    "fix": error.fix,
                }
            columns["row"].append(row)
            for name in SIZES.names[1:]:
                columns[name].append(sizes.get(name))
        return pa.table(columns, schema=SIZES)

    def _measured(self, conversation: Conversation, media_root: Path | None) -> Mapping[str, int]:
        with decoding(self._max_decode_s, where=conversation.where):
            layouts = self._headers.layouts(conversation.media)
        sizes = self._encoder.lengths(conversation, layouts=layouts)
        if not sizes.num_supervised_tokens:
            raise SampleError(
                "nothing in this row is learned: no assistant turn with text",
                kind="empty_row",
                fix="give the row an answer",
            )
        return {
            **{field.name: _as_number(getattr(sizes, field.name)) for field in fields(Lengths)},
            "modality": modality_of(conversation.media),
            "is_preference": bool(conversation.rejected),
            "content": content_digest(conversation, media_root),
            **dict(zip(DIGESTS[1:], media_sizes_and_times(conversation.media), strict=True)),
        }


def _as_number(size: int | bytes) -> int:
    return int.from_bytes(size[:8], "little", signed=True) if isinstance(size, bytes) else size


def over_context(sizes: Mapping[str, int], context_tokens: int | None) -> SampleError | None:
    """Return what is wrong with a row of these sizes, if it is longer than the model's context.

    Args:
        sizes: `num_positions` and `modality`.
        context_tokens: of the model; None is without end.
    """
    if context_tokens is None or sizes["num_positions"] <= context_tokens:
        return None
    is_video = sizes["modality"] == MODALITIES.index("video")
    shorter = "set data.max_frames to fewer" if is_video else "shorten the row"
    what = (
        f"{sizes['num_positions']} tokens in one conversation, the model's context is "
        f"{context_tokens}"
    )
    return SampleError(
        what, kind="over_context", fix=f"{shorter}, or extend the context with model.rope_scaling"
    )


def over_budget(sizes: Mapping[str, int], budget: Budget) -> SampleError | None:
    """Return what is wrong with a row of these sizes, if it is larger than a pack.

    Args:
        sizes: `num_tokens` and `num_tiles`; with `modality` the fix can name what makes such rows
            shorter.
        budget: of a pack.
    """
    is_video = sizes.get("modality") == MODALITIES.index("video")
    if sizes["num_tokens"] > budget.max_tokens:
        other = "data.max_frames to fewer" if is_video else "shorten the row"
        return SampleError(
            f"{sizes['num_tokens']} tokens, a pack holds "
            f"data.max_tokens_per_pack={budget.max_tokens}",
            kind="over_budget",
            fix=f"set data.max_tokens_per_pack to {sizes['num_tokens']} or more, or {other}",
        )
    if sizes["num_tiles"] > budget.max_tiles:
        other = "data.max_frames to fewer" if is_video else "data.image_splitting to false"
        return SampleError(
            f"{sizes['num_tiles']} tiles, a pack holds data.max_tiles_per_pack={budget.max_tiles}",
            kind="over_budget",
            fix=f"set data.max_tiles_per_pack to {sizes['num_tiles']} or more, or {other}",
        )
    return None
