"""Which files hold rows: the one table of their endings.

In: a file's name. Out: its format, and what it is compressed with. Mixtures, their patterns, the
refusal of rows in a settings file's place and the hints in messages all read from here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

RowFormat = Literal["json", "jsonl", "csv", "tsv", "parquet", "tar", "saved", "hub"]
Compression = Literal["gzip", "zstd"]

FORMAT_OF_ENDING: Mapping[str, RowFormat] = {
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".tar": "tar",
}
COMPRESSION_OF_ENDING: Mapping[str, Compression] = {
    ".gz": "gzip",
    ".zst": "zstd",
    ".zstd": "zstd",
}
FORMAT_WORDS: Mapping[RowFormat, str] = {
    "json": "a JSON list",
    "jsonl": "JSON lines",
    "csv": "CSV",
    "tsv": "TSV",
    "parquet": "Parquet",
    "tar": "a WebDataset shard",
}
"""What messages call a format."""
COMPRESSED_FORMATS = frozenset({"json", "jsonl", "csv", "tsv"})
"""Formats that are read from first to last, so that compression does not stand in the way."""
READABLE = (
    "rows are read from a JSON list (.json), JSON lines (.jsonl), CSV (.csv) and TSV (.tsv), each "
    "of them also as .gz or .zst, from Parquet (.parquet), WebDataset shards (.tar), a folder "
    "written by `save_to_disk`, and data sets of the hub (`hub: owner/name`)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RowFile:
    """What a file's name says of its rows."""

    format: RowFormat
    compression: Compression | None
    stem: str
    """The name without these endings."""

    @property
    def can_be_read(self) -> bool:
        return self.compression is None or self.format in COMPRESSED_FORMATS


def row_file(name: str | PurePath) -> RowFile | None:
    """Return what a name's endings say; None where they are no format of rows.

    `part.jsonl.gz` is JSON lines within gzip; `shard.tar.gz` is told apart too, and refused where
    it is to be read (`can_be_read`).
    """
    path = PurePath(name)
    compression = COMPRESSION_OF_ENDING.get(path.suffix.lower())
    if compression is not None:
        path = path.with_suffix("")
    row_format = FORMAT_OF_ENDING.get(path.suffix.lower())
    if row_format is None:
        return None
    return RowFile(format=row_format, compression=compression, stem=path.stem)
