"""How counts and shares are said, and what stands for a line's end among tokens."""

NEWLINE = "↵"


def plural(count: int, noun: str) -> str:
    """Return `1 tile`, `17 tiles`, `1,137 tokens`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def percent(share: float, *, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"
