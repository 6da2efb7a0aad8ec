"""The code in a Markdown page: fenced blocks, indented blocks, and the commands in both."""

import re
import shlex
import textwrap
from collections.abc import Iterator

_OPENING = re.compile(r"^ *```")
_INDENTED = re.compile(r"^(?: {4}|\t)")
_ASSIGNMENT = re.compile(r"^[A-Z_]+=\S*$")
_BETWEEN_COMMANDS = ("&&", "||", "|", ";", "&")
_SHELLS = ("bash", "console", "text", "")


def fenced(text: str) -> list[tuple[str, str]]:
    """Return the language and the text of every fenced block, its indentation taken off.

    A block that begins or ends in the middle of a line is none: its fence stands as language.
    """
    blocks: list[tuple[str, str]] = []
    language: str | None = None
    lines: list[str] = []
    for line in text.splitlines():
        if _OPENING.match(line) is None:
            lines.append(line)
        elif language is None:
            language, lines = line.strip().removeprefix("```"), []
        else:
            blocks.append((language, textwrap.dedent("\n".join(lines))))
            language = None
    return blocks if language is None else [*blocks, ("never closed", language)]


def indented(text: str) -> list[str]:
    """Return the lines that stand four spaces in and in no fence."""
    is_outside, lines = True, []
    for line in text.splitlines():
        if _OPENING.match(line):
            is_outside = not is_outside
        elif is_outside and _INDENTED.match(line):
            lines.append(line.strip())
    return lines


def commands(text: str, program: str) -> Iterator[list[str]]:
    """Yield the words of each command of a page that calls a program, the program's name first.

    Comments, a prompt (`$ `), variables before a command and what a pipe leads to are left out; a
    line that ends in a backslash goes on in the next.
    """
    shells = [block for language, block in fenced(text) if language in _SHELLS]
    lines = "\n".join([*shells, *indented(text)]).replace("\\\n", " ").splitlines()
    for line in lines:
        line = line.strip().removeprefix("$ ")
        if program not in line.split():
            continue
        words: list[str] = []
        try:
            parts = shlex.split(line, comments=True)
        except ValueError:  # an apostrophe: prose, or a program's output
            continue
        for word in [*parts, ";"]:
            if word in _BETWEEN_COMMANDS:
                while words and _ASSIGNMENT.match(words[0]):
                    words.pop(0)
                if words[:1] == [program]:
                    yield words
                words = []
            else:
                words.append(word)
