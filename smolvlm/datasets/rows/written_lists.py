"""Lists and objects that a cell writes out as text: in JSON, or as Python prints them.

CSV files have no other way, and tables that went through pandas keep it: `"['cat', 'dog']"`.
"""

import ast
import json

_MAX_PRINTED = 1 << 20
"""Characters of the longest list in Python's notation that is read."""


def written_list(text: str) -> list[object] | dict[str, object] | None:
    """Return the list or object that a text writes out; None of any other text."""
    if text[:1] not in ("[", "{"):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _printed(text)
    return value if isinstance(value, list | dict) else None


def _printed(text: str) -> object:
    if len(text) > _MAX_PRINTED:
        return None
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return None
