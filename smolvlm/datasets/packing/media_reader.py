"""The bytes of many rows' media, read over all cores and not decoded."""

from collections.abc import Sequence

from smolvlm.datasets.packing.row_digests import MediaState, media_state
from smolvlm.datasets.packing.workers import over_cores
from smolvlm.errors import located
from smolvlm.media.medium import medium_key
from smolvlm.records import Conversation

PART_ROWS = 1024
SMALL_ROWS = 4 * PART_ROWS
"""As many are read by this process: as fast as starting others."""


class MediaReader:
    """Reads the media of rows."""

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        self._conversations = conversations

    def __call__(self, rows: Sequence[int]) -> list[MediaState]:
        """Return what the files of some rows are; rows that name none are left out.

        Raises:
            SampleError: one cannot be read.
        """
        states: list[MediaState] = []
        for row in rows:
            conversation = self._conversations[row]
            with located(conversation.where):
                state = media_state(row, conversation.media, medium_key)
            if state is not None:
                states.append(state)
        return states


def read_media(conversations: Sequence[Conversation], rows: Sequence[int]) -> list[MediaState]:
    """Return what the files of rows are, sorted by row; raises as `MediaReader`."""
    parts = [rows[start : start + PART_ROWS] for start in range(0, len(rows), PART_ROWS)]
    num_workers = 1 if len(rows) <= SMALL_ROWS else None
    found = over_cores(MediaReader, (conversations,), parts, num_workers=num_workers)
    return sorted(state for _, states in found for state in states)
