"""Nearest legal names: what a mistyped key, role or word was probably meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches

SHORT = 4
"""Letters of a name up to which one that is less alike is taken, and that is no part of a longer
one."""


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `name` most resembles, or None when none is close.

    Upper and lower case, `-` and `_` count as equal. A name that lacks words of the candidate's, or
    has more, is close.
    """
    plain = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    plain_name = name.lower().replace("-", "_")
    matches = get_close_matches(
        plain_name, plain, n=1, cutoff=0.7 if len(plain_name) > SHORT else 0.6
    )
    if not matches:
        matches = [
            other
            for other in plain
            if min(len(plain_name), len(other)) > SHORT and _is_part(plain_name, other)
        ]
    return plain[matches[0]] if matches else None


def _is_part(one: str, other: str) -> bool:
    """Say whether a name is the other's first or last words: `alpha`, `lora_alpha`."""
    shorter, longer = sorted((one, other), key=len)
    return longer.startswith(f"{shorter}_") or longer.endswith(f"_{shorter}")


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """Return "did you mean `x`?", or None when nothing is close."""
    match = nearest(name, candidates)
    return f"did you mean `{match}`?" if match else None
