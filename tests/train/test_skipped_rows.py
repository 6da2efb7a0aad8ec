"""Rows that cannot be decoded: each counts once, and too many of them end the run."""

import dataclasses

import pytest

from smolvlm.errors import SampleError
from smolvlm.records import SkippedRow
from smolvlm.train.batch import PackInfo
from smolvlm.train.skipped_rows import SkippedRows
from tests.train.test_log import info


def pack_without(*places: str) -> PackInfo:
    rows = tuple(SkippedRow(where=place, reason="cut off") for place in places)
    return dataclasses.replace(info(), skipped=rows)


def test_a_row_counts_once_however_often_it_comes() -> None:
    skipped = SkippedRows(num_rows=4, max_bad_fraction=0.5)
    for _ in range(9):
        skipped.add(pack_without("rows.jsonl:1", "rows.jsonl:2"))


def test_too_many_rows_are_an_error_with_their_reasons() -> None:
    skipped = SkippedRows(num_rows=4, max_bad_fraction=0.25)
    skipped.add(pack_without("rows.jsonl:1"))
    with pytest.raises(SampleError, match=r"2 of 4 rows cannot be used(.|\n)*2 x cut off"):
        skipped.add(pack_without("rows.jsonl:2"))
