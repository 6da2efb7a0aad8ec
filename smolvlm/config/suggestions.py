"""Nearest legal names: what a mistyped key, role or word was probably meant to be."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that `name` most resembles, or None when none is close.

    Upper and lower case, `-` and `_` count as equal.
    """
    plain = {candidate.lower().replace("-", "_"): candidate for candidate in candidates}
    matches = get_close_matches(name.lower().replace("-", "_"), plain, n=1, cutoff=0.7)
    return plain[matches[0]] if matches else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str | None:
    """Return "did you mean `x`?", or None when nothing is close."""
    match = nearest(name, candidates)
    return f"did you mean `{match}`?" if match else None
