"""The kinds of fuzzed inputs: for each the function that makes one, checks it and judges."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Literal

from fuzz.checked import Checker
from fuzz.checkpoints import fuzz_checkpoints
from fuzz.clips import fuzz_clips
from fuzz.pictures import fuzz_pictures
from fuzz.row_files import fuzz_rows
from fuzz.settings_files import fuzz_settings
from fuzz.tables import fuzz_tables
from fuzz.tars import fuzz_tars

Kind = Literal["rows", "tar", "tables", "yaml", "pictures", "clips", "checkpoints"]
Fuzz = Callable[[Random, Path, Checker], tuple[list[str], int]]
"""Makes an input in an empty folder, checks it, and returns its faults and how many of its rows, or
settings, were accepted."""
KINDS: Mapping[Kind, Fuzz] = {
    "rows": fuzz_rows,
    "tar": fuzz_tars,
    "tables": fuzz_tables,
    "yaml": fuzz_settings,
    "pictures": fuzz_pictures,
    "clips": fuzz_clips,
    "checkpoints": fuzz_checkpoints,
}
SHARES: Mapping[Kind, int] = {
    "rows": 38,
    "tar": 16,
    "tables": 12,
    "yaml": 8,
    "pictures": 16,
    "clips": 8,
    "checkpoints": 2,
}
"""Of a campaign's inputs, in parts."""
