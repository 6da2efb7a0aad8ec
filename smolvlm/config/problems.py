"""Many problems in one error: everything that is wrong with a file is said at once, so that it is
fixed at once.

However large a value is and however often a mistake was made, the text stays one that a terminal
shows: values are cut, mistakes that differ in their place in a list alone are counted.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from smolvlm.errors import ConfigError

SHOWN_PROBLEMS = 40
"""Problems of one error that are listed; the others are counted."""
_MAX_VALUE_CHARACTERS = 80
_MAX_MEMBERS = 100
"""Of a list or mapping, that are written out before the text is cut."""
_MAX_KEY_CHARACTERS = 160
_MAX_SENTENCE_CHARACTERS = 700
_PLACE = re.compile(r"\[\d+\]")
"""In a list."""
_MAX_TEXT_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One thing that is wrong with a settings file."""

    key: str
    """Dotted key, as in `data.max_tokens_per_pack`."""
    what: str
    """What is wrong; starts in lower case and has no full stop."""
    fix: str | None = None
    value: str | None = None
    """The value given, as `shown_value` writes it; None when there is none to show."""
    is_override: bool = False
    """The value was given on the command line and not in the file."""


def shown_value(value: object) -> str:
    """Return a setting's value for an error message: close to its YAML, and short.

    What is cut says how long it is: `[1, 2, 3... (500 entries)`.
    """
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = repr(_beginning(value))
    if len(text) <= _MAX_VALUE_CHARACTERS:
        return text
    is_many = isinstance(value, list | tuple | Mapping)
    length = len(value) if isinstance(value, str | bytes) or is_many else len(text)
    size = f"... ({length:,} {'entries' if is_many else 'characters'})"
    return text[: _MAX_VALUE_CHARACTERS - len(size)] + size


def _beginning(value: object) -> object:
    """Return so much of a value as is ever shown."""
    if isinstance(value, str | bytes):
        return value[: 2 * _MAX_VALUE_CHARACTERS]
    if isinstance(value, list):
        return [_beginning(member) for member in value[:_MAX_MEMBERS]]
    if isinstance(value, dict):
        return {_beginning(key): _beginning(value[key]) for key in list(value)[:_MAX_MEMBERS]}
    return value


def shown_text(text: str) -> str:
    """Return a text for an error message, on one line and cut at its end where it is long."""
    line = " ".join(text.split())
    if len(line) <= _MAX_TEXT_CHARACTERS:
        return line
    return line[: _MAX_TEXT_CHARACTERS - 3] + "..."


def shown_path(path: str | PurePath) -> str:
    """Return a path for an error message, cut at its front: `…/folder/file.jpg`.

    Its end says which file it is.
    """
    text = str(path)
    if len(text) <= _MAX_VALUE_CHARACTERS:
        return text
    kept = text[1 - _MAX_VALUE_CHARACTERS :]
    _, slash, folders = kept.partition("/")
    return f"…/{folders}" if slash and folders else f"…{kept}"


def more_like_it(count: int, noun: str = "") -> str:
    """Return what follows the first of several that are alike: ` (and 3 more rows like it)`.

    Args:
        count: of the others; nothing follows where there are none.
        noun: for one of them.
    """
    nouns = f" {noun}{'' if count == 1 else 's'}" if noun else ""
    return f" (and {count:,} more{nouns} like it)" if count else ""


def joined_errors(errors: Sequence[ConfigError]) -> ConfigError:
    """Return one error that says what several say, each with its own place and fix.

    Args:
        errors: of several files; at least one.
    """
    return errors[0] if len(errors) == 1 else ConfigError("\n".join(map(str, errors)))


def problems_error(problems: Sequence[Problem], *, where: str) -> ConfigError:
    """Return one error that lists every problem: key, value, what is wrong, what to write instead.

    Args:
        problems: at least one.
        where: the file they are in.
    """
    lines = ["1 problem:" if len(problems) == 1 else f"{len(problems):,} problems:"]
    alike = _alike(problems)
    for first, *others in alike[:SHOWN_PROBLEMS]:
        lines.append(f"  - {_sentence(first)}{more_like_it(len(others))}")
    if len(alike) > SHOWN_PROBLEMS:
        num_left = sum(map(len, alike[SHOWN_PROBLEMS:]))
        lines.append(f"  - and {num_left:,} more")
    return ConfigError("\n".join(lines), where=where)


def _sentence(problem: Problem) -> str:
    key = _cut(problem.key, _MAX_KEY_CHARACTERS)
    value = f" = {problem.value}" if problem.value is not None else ""
    origin = " (on the command line)" if problem.is_override else ""
    cure = f"; {_cut(problem.fix, _MAX_SENTENCE_CHARACTERS)}" if problem.fix else ""
    what = _cut(problem.what, _MAX_SENTENCE_CHARACTERS)
    return f"{key}{value}{origin}: {what}{cure}"


def _alike(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Return problems in groups that differ in places within lists alone: `[3].wieght`."""
    groups: dict[tuple[object, ...], list[Problem]] = {}
    for problem in problems:
        key = _PLACE.sub("[]", problem.key[:_MAX_KEY_CHARACTERS])
        kind = (key, problem.what, problem.fix, problem.is_override)
        groups.setdefault(kind, []).append(problem)
    return list(groups.values())


def _cut(text: str, limit: int) -> str:
    """Return a text that is cut at its end where it is long, and says how long it is."""
    if len(text) <= limit:
        return text
    size = f"... ({len(text):,} characters)"
    return text[: limit - len(size)] + size
