"""The rows that reading is timed with are rows."""

import pytest

from benchmarks.reading import FORMATS
from tests.datasets.rows.row_cases import convert


@pytest.mark.parametrize("name", FORMATS)
def test_each_row_is_read(name: str) -> None:
    conversation = convert(FORMATS[name])
    assert [turn.role for turn in conversation.turns] == ["user", "assistant"]
    assert len(conversation.media) == {"LLaVA": 1, "messages": 2, "question": 1, "text": 0}[name]
