"""Keys that no reader knows and that yet seem to change what a row means: misspelt names, a second
question, an option in a column of its own, a part of a clip in unforeseen words."""

import re
from collections.abc import Collection, Iterable
from functools import lru_cache

from smolvlm.config.yaml_text import dump_flow
from smolvlm.datasets.rows.clip_bounds import seconds_of
from smolvlm.datasets.rows.keys import (
    END_KEYS,
    FURTHER_KEY,
    HARMLESS,
    KNOWN_IN_ANSWERS,
    KNOWN_IN_BLOCKS,
    KNOWN_IN_ROWS,
    KNOWN_IN_TURNS,
    OPTION_KEY,
    START_KEYS,
    TIME_WORDS,
)

_SHORTEST_MISSPELT = 5
"""Characters; shorter names are often one letter from each other by chance."""
_BOUNDS = frozenset({*START_KEYS, *END_KEYS})
_WORD_EDGE = re.compile(r"[ _.-]+|(?<=[a-z])(?=[A-Z])")
_MOST_TIMES = 64


@lru_cache(maxsize=4096)
def misspelt_key(key: str, level: str, *, has_clip: bool) -> str | None:
    """Return the known name that a key misspells: other capitals, or one letter added, left out,
    changed or exchanged with its neighbour; None where there is none.

    Args:
        key: that nobody read.
        level: of the object, as `unread.level_of` names it.
        has_clip: the row has a clip, so that a begin and an end mean something.
    """
    known: Collection[str] = KNOWN_IN_BLOCKS
    if level in ("row", "question_row"):
        known = KNOWN_IN_ROWS
    elif level == "turn":
        known = KNOWN_IN_TURNS
    elif level == "answer":
        known = KNOWN_IN_ANSWERS
    if key in known or key in _BOUNDS or key in HARMLESS:
        return None
    if has_clip:
        known = {*known, *_BOUNDS}
    plain = key.lower().replace("-", "_").replace(" ", "_")
    near = (
        name
        for name in sorted(known)
        if plain == name
        or (min(len(plain), len(name)) >= _SHORTEST_MISSPELT and _is_one_typo(plain, name))
    )
    return next(near, None)


def misspelt_as(keys: Iterable[str], wanted: Collection[str]) -> str | None:
    """Return "did you mean `answer` by `anwser`? ...", a fix, of the first of a row's keys that
    misspells a wanted one; None where none does."""
    for key in keys:
        meant = misspelt_key(key, "row", has_clip=False)
        if meant is not None and meant in wanted:
            columns = dump_flow({meant: key})
            return (
                f"did you mean `{meant}` by `{key}`? rename it, or say so in the source's "
                f"`columns`: `{columns}`"
            )
    return None


def is_further_text(key: str, value: object, *, asks_by_columns: bool) -> bool:
    """Say whether a key of a row seems to be a second question or answer, or an option."""
    if not asks_by_columns or not isinstance(value, str | int | float) or value == "":
        return False
    return FURTHER_KEY.match(key) is not None or OPTION_KEY.match(key) is not None


def is_clip_part(key: str, value: object) -> bool:
    """Say whether a key beside a clip seems to say which part of it is meant: its words are of
    time, and so is its value."""
    return _is_of_time(key) and _is_time(value)


@lru_cache(maxsize=4096)
def _is_of_time(key: str) -> bool:
    return all(word.lower() in TIME_WORDS for word in _WORD_EDGE.split(key))


def _is_time(value: object) -> bool:
    if isinstance(value, list | tuple):
        return 0 < len(value) <= _MOST_TIMES and all(map(_is_time, value))
    if isinstance(value, dict):
        return any(map(_is_time, value.values()))
    return seconds_of(value) is not None


def _is_one_typo(one: str, other: str) -> bool:
    if one == other or abs(len(one) - len(other)) > 1:
        return False
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    rest, other_rest = one[start:], other[start:]
    swapped = rest[:2] == other_rest[1::-1] and rest[2:] == other_rest[2:] and len(rest) > 1
    changed = rest[1:] == other_rest[1:]
    return swapped or changed or rest[1:] == other_rest or rest == other_rest[1:]
