"""Pictures and clips that a row holds as text: in base64, as a data URI or bare."""

import base64
import re

from smolvlm.errors import SampleError
from smolvlm.media.kinds import kind_of_bytes

_DATA_URI = re.compile(r"^data:([^,;]*)((?:;[^,;]*)*),", re.IGNORECASE)
_BASE64_START = re.compile(r"^[A-Za-z0-9+/]{24,}")
_SHORTEST_BASE64 = 40
"""Characters of the smallest picture."""
_BASE64_PROBE = 96
"""Characters, a multiple of four, whose bytes tell whether a text is a picture or a clip."""


def encoded_bytes(text: str) -> bytes | None:
    """Return the first bytes of a text that is a picture or a clip in base64; None of any other."""
    if len(text) < _SHORTEST_BASE64:
        return None
    match = _DATA_URI.match(text)
    begin = text[match.end() if match else 0 :][: 2 * _BASE64_PROBE]
    begin = begin.replace("\n", "").replace("\r", "")[:_BASE64_PROBE]
    if not _BASE64_START.match(begin):
        return None
    try:
        data = base64.b64decode(begin[: len(begin) // 4 * 4])
    except ValueError:
        return None
    return data if kind_of_bytes(data) is not None else None


def plain_bytes(data: bytes, kind: str) -> bytes:
    """Return the bytes of a picture or a clip that a column of bytes may hold as base64 text."""
    is_text = kind_of_bytes(data) is None and data[:_BASE64_PROBE].isascii()
    if is_text and encoded_bytes(data[:_BASE64_PROBE].decode("ascii")) is not None:
        return decoded(data.decode("ascii", "replace"), kind)
    return data


def decoded(text: str, kind: str) -> bytes:
    """Return the bytes of a picture or a clip that is written as base64, as a data URI or bare.

    Args:
        text: as the row has it.
        kind: what messages call it: `a picture`.

    Raises:
        SampleError: it is damaged, or a data URI of something else.
    """
    if text[:5].lower() == "data:":
        return _of_data_uri(text, kind)
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:  # binascii.Error is one; of letters beyond ASCII it is a plain one
        what = f"{kind} is embedded as base64 text that is damaged: {error}"
        raise SampleError(what, kind="corrupt_media", fix="encode it anew") from None
    if not data:
        raise SampleError(f"{kind} is empty base64 text", kind="empty_media", fix="encode it anew")
    return data


def _of_data_uri(text: str, kind: str) -> bytes:
    match = _DATA_URI.match(text)
    if match is None or not match[2].lower().endswith(";base64"):
        fix = "write `data:image/png;base64,...`, or save it as a file"
        raise SampleError(f"{kind} is a data URI that is not base64", fix=fix)
    return decoded(text[match.end() :], kind)
