"""The files that a pattern names: `shards/*.tar`, `part-{000..127}.jsonl`."""

import os
import re
from glob import glob
from pathlib import Path

from braceexpand import braceexpand

MAX_FILES = 100_000
"""Alternatives in braces of one pattern."""
_MAX_DEPTH = 50
_TOKEN = re.compile(r"\\.|[{},]|[^{},\\]+|\\")
_RANGE = re.compile(r"(-?[0-9]{1,18})\.\.(-?[0-9]{1,18})(?:\.\.-?[0-9]{1,18})?")

_LETTERS = re.compile(r"[A-Za-z]\.\.[A-Za-z](?:\.\.-?[0-9]{1,18})?")
_MOST_LETTERS = 58
"""From `A` to `z`."""


def files_of(pattern: str) -> tuple[Path, ...]:
    """Return the files that a pattern names, in its order; of `*` sorted.

    Raises:
        ValueError: braces without their pair, or more alternatives than a mixture's files can be.
    """
    if num_alternatives(pattern) > MAX_FILES:
        raise ValueError(f"its braces stand for more than {MAX_FILES:,} names")
    return tuple(file for name in braceexpand(pattern) for file in _matching(name))


def num_alternatives(pattern: str) -> int:
    """Return how many names the braces of a pattern stand for; none is made.

    Raises:
        ValueError: they are nested too deeply.
    """
    outer: list[tuple[int, int]] = []
    before, factor, text = 0, 1, ""
    for match in _TOKEN.finditer(pattern):
        token = match[0]
        if token == "{":
            if len(outer) >= _MAX_DEPTH:
                raise ValueError("its braces are nested too deeply")
            outer.append((before, factor))
            before, factor, text = 0, 1, ""
        elif token == "," and outer:
            before, factor, text = before + factor, 1, ","
        elif token == "}" and outer:
            inside = max(before + factor, _num_in_range(text))
            before, factor = outer.pop()
            factor, text = min(factor * inside, MAX_FILES + 1), ","
        else:
            text += token
    return max([factor, *(earlier for _, earlier in outer)])


def _num_in_range(text: str) -> int:
    """Return how many names a range in braces is at most; 0 where the text is no range."""
    if span := _RANGE.fullmatch(text):
        return abs(int(span[1]) - int(span[2])) + 1
    return _MOST_LETTERS if _LETTERS.fullmatch(text) else 0


def _matching(pattern: str) -> list[Path]:
    """Return the files that a pattern with `*` names, sorted; a name without one is itself."""
    if not any(mark in pattern for mark in "*?["):
        return [Path(pattern)] if os.path.isfile(pattern) else []
    return sorted(Path(name) for name in glob(pattern, recursive=True) if os.path.isfile(name))
