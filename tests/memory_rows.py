"""Rows that a test makes itself, measured as rows of files are."""

from collections.abc import Sequence
from typing import Any

import pytest

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import Meter
from smolvlm.datasets.packing.measured import MeasuredSet, length_table
from smolvlm.records import Conversation


class MemoryRows(list[Conversation]):
    """A list with what `Conversations` has besides."""

    def where(self, index: int) -> str:
        return self[index].where

    @property
    def source_names(self) -> tuple[str, ...]:
        return tuple(sorted({row.source for row in self}))


def measured_rows(rows: Sequence[Conversation], prompt: PromptSettings) -> MeasuredSet:
    """Return good rows as a measured set."""
    own: Any = MemoryRows(rows)
    sizes = Meter(prompt.encoder(), prompt.media).sizes(own, range(len(own)))
    if sizes["error"].null_count < len(sizes):
        pytest.fail(str(sizes["error"].drop_null()))
    return MeasuredSet(conversations=own, lengths=length_table([sizes], [1.0]))
