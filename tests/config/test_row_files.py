"""What the endings of a file of rows say."""

import pytest

from smolvlm.config.row_files import (
    COMPRESSED_FORMATS,
    COMPRESSION_OF_ENDING,
    FORMAT_OF_ENDING,
    FORMAT_WORDS,
    READABLE,
    row_file,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/train.jsonl", ("jsonl", None, "train", True)),
        ("train.v2.JSONL.GZ", ("jsonl", "gzip", "train.v2", True)),
        ("a.csv.zst", ("csv", "zstd", "a", True)),
        ("a.tar.gz", ("tar", "gzip", "a", False)),
        ("a.parquet.gz", ("parquet", "gzip", "a", False)),
    ],
)
def test_a_name_says_format_and_compression(name: str, expected: tuple) -> None:
    named = row_file(name)
    assert named is not None
    assert (named.format, named.compression, named.stem, named.can_be_read) == expected


@pytest.mark.parametrize("name", ["a.md", "a.gz", "a", "a.jsonl.bz2", ".jsonl", ""])
def test_other_names_are_no_rows(name: str) -> None:
    assert row_file(name) is None


def test_every_ending_is_in_the_hint() -> None:
    hinted = {ending for ending in FORMAT_OF_ENDING if ending != ".ndjson"}
    assert all(f"{ending}" in READABLE for ending in (*hinted, ".gz", ".zst"))
    assert FORMAT_WORDS.keys() == {*FORMAT_OF_ENDING.values()}
    assert FORMAT_WORDS.keys() > COMPRESSED_FORMATS
    assert {*COMPRESSION_OF_ENDING.values()} == {"gzip", "zstd"}
