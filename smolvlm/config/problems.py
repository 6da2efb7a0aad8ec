"""Many problems in one error: everything that is wrong with a file is said at once, so that it is
fixed at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from smolvlm.errors import ConfigError

_MAX_VALUE_CHARACTERS = 80
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
    """Return a setting's value for an error message: close to its YAML, and short."""
    text = (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    )
    return text if len(text) <= _MAX_VALUE_CHARACTERS else text[: _MAX_VALUE_CHARACTERS - 3] + "..."


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
    lines = ["1 problem:" if len(problems) == 1 else f"{len(problems)} problems:"]
    for problem in problems:
        value = f" = {problem.value}" if problem.value is not None else ""
        origin = " (on the command line)" if problem.is_override else ""
        cure = f"; {problem.fix}" if problem.fix else ""
        lines.append(f"  - {problem.key}{value}{origin}: {problem.what}{cure}")
    return ConfigError("\n".join(lines), where=where)
