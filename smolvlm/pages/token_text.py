"""How counts and shares are said, and what stands for a line's end among tokens."""

import re
from pathlib import Path

NEWLINE = "↵"


def plural(count: int, noun: str) -> str:
    """Return `1 tile`, `17 tiles`, `1,137 tokens`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def percent(share: float, *, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def without_home(text: str) -> str:
    """Return a text in which paths below this user's home folder begin with `~`: a page that is
    passed on need not say whose it was."""
    try:
        home = str(Path.home())
    except RuntimeError:  # the system knows of none
        return text
    if len(Path(home).parts) < 2:  # the root of all paths
        return text
    return re.sub(rf"(?<![\w./~-]){re.escape(home)}(?![\w.-])", "~", text)
