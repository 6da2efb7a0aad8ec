"""The kinds of fuzzed inputs: for each the function that makes one, checks it and judges."""

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Literal

from fuzz.checked import Checker
from fuzz.pictures import fuzz_pictures
from fuzz.row_files import fuzz_rows
from fuzz.tars import fuzz_tars

Kind = Literal["rows", "tar", "pictures"]
Fuzz = Callable[[Random, Path, Checker], tuple[list[str], int]]
"""Makes an input in an empty folder, checks it, and returns its faults and how many of its rows, or
settings, were accepted."""
KINDS: Mapping[Kind, Fuzz] = {"rows": fuzz_rows, "tar": fuzz_tars, "pictures": fuzz_pictures}
SHARES: Mapping[Kind, int] = {"rows": 40, "tar": 15, "pictures": 15}
"""Of a campaign's inputs, in parts."""
