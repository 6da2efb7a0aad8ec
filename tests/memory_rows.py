"""Rows that a test makes itself, measured as rows of files are."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import pytest

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import Meter
from smolvlm.datasets.packing.measured import MeasuredSet, length_table
from smolvlm.datasets.rows.sources import BadSamplePolicy
from smolvlm.records import Conversation


class MemoryRows(list[Conversation]):
    """A list with what `Conversations` has besides."""

    policies: Mapping[str, BadSamplePolicy] = MappingProxyType({})
    """`on_bad_sample` of sources that have one of their own."""

    def where(self, index: int) -> str:
        return self[index].where

    def own_policy(self, index: int) -> BadSamplePolicy | None:
        return self.policies.get(self[index].source)

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
