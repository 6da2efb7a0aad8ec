"""Values that must be text, or a list of objects: what they are instead is said in plain words."""

import json
from collections.abc import Mapping

from smolvlm.errors import SampleError

MAX_TEXT_CHARACTERS = 1 << 22
"""Of one text: above a million tokens."""


def as_objects(value: object, name: str) -> list[Mapping[str, object]]:
    """Return `value` as a list of objects, at least one."""
    if not isinstance(value, list) or not all(isinstance(member, dict) for member in value):
        raise SampleError(
            f"`{name}` is not a list of objects", fix=f"write `{name}` as [{{...}}, ...]"
        )
    if not value:
        raise SampleError(f"`{name}` is empty", fix="fill it, or take the row out")
    return value


def as_text(value: object, name: str) -> str:
    """Return a value that must be text, and text that can be written as UTF-8.

    Raises:
        SampleError: it is none, or longer than any model's context by far.
    """
    if not isinstance(value, str):
        fix = "write it as text: in quotes in JSON, a column of type string in Parquet"
        raise SampleError(f"{name} is {kind_of(value)}, not text", fix=fix)
    if len(value) > MAX_TEXT_CHARACTERS:
        what = f"{name} has {len(value):,} characters, more than {MAX_TEXT_CHARACTERS:,}"
        raise SampleError(what, kind="over_context", fix="cut the text into several rows")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SampleError(
                f"{name} holds half a character (a lone surrogate)", fix="fix the text"
            ) from None
    return value


def answer_text(value: object, name: str) -> str:
    """Return an answer as text; a number or a boolean is written as JSON writes it.

    Raises:
        SampleError: it is no text, number or boolean, or no number that JSON has.
    """
    if isinstance(value, bool | int | float):
        text = json.dumps(value)
        if text in ("NaN", "Infinity", "-Infinity"):
            raise SampleError(f"{name} is {text}, no answer", fix="write it, or take the row out")
        return text
    return as_text(value, name)


def kind_of(value: object) -> str:
    """Name a JSON value's kind for a message."""
    if value is None:
        return "missing or null"
    kinds = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), f"a {type(value).__name__}")
