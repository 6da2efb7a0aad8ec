"""Lists and objects that a cell writes out as text: in JSON, or as Python or NumPy prints them.

CSV files have no other way, and tables that went through pandas keep it: `"['cat', 'dog']"`, or
`"['cat' 'dog']"` where the column held arrays.
"""

import ast
import io
import json
import re
import tokenize
from itertools import pairwise

from smolvlm.datasets.rows.depth import is_too_deep

_MAX_PRINTED = 1 << 20
"""Characters of the longest printed list that is read."""
_ARRAY = re.compile(r"array\((\[.*\])(?:,\s*dtype=[^)]*)?\)", re.DOTALL)
_BEGINS = ("[", "{", "array([")
_PASSED = frozenset({tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER, tokenize.COMMENT})


def may_be_list(value: object) -> bool:
    """Say whether a value is text that begins as a written list or object does."""
    return isinstance(value, str) and value.startswith(_BEGINS)


def written_list(text: str) -> list[object] | dict[str, object] | None:
    """Return the list or object that a text writes out; None of any other text, and of one that is
    nested too deeply."""
    if not text.startswith(_BEGINS):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = _printed(text)
    return value if isinstance(value, list | dict) and not is_too_deep(value) else None


def _printed(text: str) -> object:
    if len(text) > _MAX_PRINTED:
        return None
    if match := _ARRAY.fullmatch(text.strip()):
        text = match[1]
    try:
        value = ast.literal_eval(text)
        # Python reads texts side by side as one; NumPy means several.
        return _side_by_side(text) if _has_neighbours(text) else value
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError):
        return None


def _has_neighbours(text: str) -> bool:
    kinds = [token.type for token in _tokens(text)]
    return any(one == other == tokenize.STRING for one, other in pairwise(kinds))


def _side_by_side(text: str) -> list[object] | None:
    """Return the texts of a flat list that NumPy printed; None where there is more in it."""
    tokens = _tokens(text)
    inner = tokens[1:-1]
    if any(kind != tokenize.STRING for kind, *_ in inner):
        return None
    return [ast.literal_eval(written) for _, written, *_ in inner]


def _tokens(text: str) -> list[tokenize.TokenInfo]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token for token in tokens if token.type not in _PASSED]
