"""One cause behind many rows: errors whose texts differ only in what is the row's own.

In: errors, or anything that has a text. Out: groups, the largest first. A file of 200 rows with one
mistake then takes one line of a message instead of all of them. Grouping is for showing alone:
counts by kind, and what is done about a row, never ask it.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from smolvlm.config.problems import more_like_it
from smolvlm.errors import SampleError

Item = TypeVar("Item")
MAX_TEXT = 1000
"""Characters of a text that are compared."""
_OF_THE_ROW = re.compile(
    r"""(?:(?<=^picture\ )|(?<=^clip\ )).+?(?=\ (?:is|does|has|cannot)\b)  # names may have spaces
    | (?<!\w)b?'(?:[^'\\]|\\.)*'(?!\w)  # a value as Python writes it
    | "(?:[^"\\]|\\.)*"
    | [^\s`"'(]*/[^\s`"')]*               # a path or an address
    | [^\s`"'(/]+\.[a-zA-Z]\w{1,4}\b      # a file's name
    | :\d+\b                              # the row of a `file:row`
    | \d[\d,.]*                           # a number
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cause:
    """Rows that cannot be used for one reason."""

    kind: str
    """`errors.SampleKind` of the errors."""
    what: str
    """What is wrong with the first row."""
    fix: str | None
    where: str
    """The first row, `file:row`."""
    num_rows: int

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}{more_like_it(self.num_rows - 1, 'row')}"
        return f"{text}\n  fix: {self.fix}" if self.fix else text


def without_row(text: str) -> str:
    """Return a message without what is the row's own: values in quotes, paths, names, numbers.

    `picture a/7.png does not exist` and `picture b/19.png does not exist` become equal.
    """
    return _OF_THE_ROW.sub("#", text[:MAX_TEXT])


def by_cause(
    items: Iterable[Item], cause_of: Callable[[Item], tuple[str, str]]
) -> list[list[Item]]:
    """Return items in groups of one cause each, the largest first; within a group in their order.

    Args:
        items: findings, errors.
        cause_of: gives an item's kind and its message.
    """
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        kind, text = cause_of(item)
        groups.setdefault((kind, without_row(text)), []).append(item)
    return sorted(groups.values(), key=len, reverse=True)


def causes_of(errors: Sequence[SampleError]) -> tuple[Cause, ...]:
    """Return what is wrong with rows, each cause once, the most frequent first.

    Args:
        errors: one a row; each names its row.
    """
    return tuple(
        Cause(
            kind=group[0].kind,
            what=group[0].what,
            fix=group[0].fix,
            where=group[0].where or "",
            num_rows=len(group),
        )
        for group in by_cause(errors, lambda error: (error.kind, error.what))
    )
