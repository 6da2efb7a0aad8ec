r"""The one way out to a terminal: text of rows, files and servers is shown there, not obeyed.

A row may hold an escape sequence that clears the screen, or marks that turn the reading direction
so that one path looks like another. Every such character is written out (`\x1b`, `\u202e`); colours
are the program's own.
"""

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_STAYS = frozenset("\n\N{IDEOGRAPHIC SPACE}\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}")
"""Not printable by Unicode's classes, and yet part of ordinary text in some scripts."""


def visible(text: str) -> str:
    r"""Return `text` with every character that a terminal would obey written out: escape is `\x1b`.

    The newline stays, and so do joiners within words.
    """
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or character in _STAYS
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def say(*texts: object, to: TextIO | None = None) -> None:
    """Write a line: what a person reads, on the standard error stream unless told otherwise."""
    line = " ".join(map(str, texts))
    print(visible(line), file=to or sys.stderr)


def say_piece(text: str) -> None:
    """Write a piece of a longer text on standard output, seen at once."""
    print(visible(text), end="", flush=True)


def say_json(value: object) -> None:
    """Write a value as one line of JSON on standard output; it reads back as it was."""
    print(json_text(value))


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return a value as JSON in which nothing is left that a terminal would obey."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in _STAYS else json.dumps(character)[1:-1]
        for character in text
    )


def console(*, file: TextIO | None = None, **settings: Any) -> "Console":
    """Return rich's console on the standard error stream, or on `file`, its text made visible.

    Args:
        file: instead.
        settings: rich's own.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class VisibleConsole(Console):
        """Writes out what a terminal would obey in whatever it renders."""

        def render(
            self, renderable: "RenderableType", options: "ConsoleOptions | None" = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                if segment.control or segment.text.isprintable():
                    yield segment
                else:
                    yield Segment(visible(segment.text), segment.style, segment.control)

    return VisibleConsole(file=file, stderr=file is None, **settings)
