"""How a token's text is shown, and counts and shares: control characters are made visible.

Rows come from anywhere; a terminal must not obey the escape sequences in them, nor a page lose its
line breaks.
"""

NEWLINE = "↵"
SHOWN_AS_THEY_ARE = "\n\N{IDEOGRAPHIC SPACE}\N{ZERO WIDTH JOINER}\N{ZERO WIDTH NON-JOINER}"
"""Not printable by Unicode's classes, and yet part of ordinary text in some scripts."""


def shown_text(text: str) -> str:
    r"""Return `text` with every control character but the newline written out: escape is `\x1b`."""
    return "".join(_shown(character) for character in text)


def plural(count: int, noun: str) -> str:
    """Return `1 tile`, `17 tiles`, `1,137 tokens`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def percent(share: float, *, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _shown(character: str) -> str:
    if character.isprintable() or character in SHOWN_AS_THEY_ARE:
        return character
    return character.encode("unicode_escape").decode("ascii")
