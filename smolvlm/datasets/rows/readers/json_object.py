"""A JSON file that is one object and no list of rows: what it seems to be, and how to make rows of
it.

In: the beginning of the file's text. Out: the error. Looked for are the layouts in which data sets
are published: COCO's, a list under a key, rows by their names, and JSON lines of the wrong ending.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from smolvlm.config.problems import shown_text
from smolvlm.errors import SampleError

HEAD_CHARACTERS = 1 << 20
"""How much of the file is looked at."""
_MAX_KEYS = 1000
_DECODER = json.JSONDecoder(parse_int=str)
_SPACES = " \t\r\n"
_OF_A_ROW = frozenset(
    {
        *("answer", "answers", "chosen", "conversations", "history", "instruction"),
        *("messages", "output", "prompt", "question", "rejected", "texts"),
    }
)
"""Keys that a row has and a file of rows does not."""
_LINES = (
    "one object a line is JSON lines: give the file the ending .jsonl; else write a list of rows, "
    "[...]"
)


@dataclass(slots=True)
class _Outline:
    """The keys of an object as far as its text goes."""

    begins: dict[str, str] = field(default_factory=dict)
    """Key -> the first two characters of its value that are no space: `[{`."""
    first_keys: dict[str, frozenset[str]] = field(default_factory=dict)
    """Key -> keys of the first object in its list, where that could be read."""
    is_closed: bool = False
    rest: str = ""
    """What follows the object."""


def no_list(head: str, *, where: str) -> SampleError:
    """Return the error of a file that should hold a JSON list of rows and does not.

    Args:
        head: its text, or the beginning of it.
        where: what messages call it.
    """
    what, fix = "the file is not a JSON list", _LINES
    outline = _outline(head[:HEAD_CHARACTERS]) if head[:1] == "{" else None
    if outline is not None and not outline.rest.startswith("{"):
        what, fix = _of_object(outline)
    return SampleError(what, kind="bad_file", where=where, fix=fix)


def _of_object(outline: _Outline) -> tuple[str, str]:
    """Return what a file of one object is, and what to do about it."""
    if _is_coco(outline):
        what = (
            "the file is one object of `images` and `annotations` (COCO's layout), no list of rows"
        )
        fix = (
            'write a row an annotation, {"image": the `file_name` of its `image_id`, "question": '
            '..., "answer": ...}, to a .jsonl file; docs/mixtures.md shows the lines of Python'
        )
        return what, fix
    if not _OF_A_ROW.isdisjoint(outline.begins):
        what = "the file is one row, not a JSON list of rows"
        return what, "write [ before it and ] behind it, or give the file the ending .jsonl"
    lists = [key for key, begin in outline.begins.items() if begin == "[{"]
    if lists:
        name = shown_text(lists[0])
        others = " and ".join(f"`{shown_text(key)}`" for key in lists[1:3])
        what = (
            f"the file is one object whose `{name}` holds a list"
            f"{f' (so does {others})' if others else ''}, and not a list of rows itself"
        )
        code = f"json.dump(json.load(open('FILE'))[{lists[0][:60]!r}], open('rows.json', 'w'))"
        return what, f'write that list alone: python -c "import json; {code}"'
    if outline.begins and all(begin[:1] == "{" for begin in outline.begins.values()):
        what = "the file is one object of rows by their names, not a list of rows"
        code = "json.dump(list(json.load(open('FILE')).values()), open('rows.json', 'w'))"
        return what, f'write its values as a list: python -c "import json; {code}"'
    return "the file is one object, not a JSON list", _LINES


def _is_coco(outline: _Outline) -> bool:
    keys: Mapping[str, frozenset[str]] = outline.first_keys
    is_of_images = "file_name" in keys.get("images", ()) and (
        "annotations" in outline.begins or not outline.is_closed
    )
    return is_of_images or "image_id" in keys.get("annotations", ())


def _outline(text: str) -> _Outline:
    """Return an object's keys up to the first value that does not end within the text."""
    outline, position = _Outline(), 1
    while len(outline.begins) < _MAX_KEYS:
        position = _past(text, position, f"{_SPACES},")
        if text[position : position + 1] == "}":
            outline.is_closed = True
            outline.rest = text[position + 1 :].lstrip(_SPACES)
            break
        try:
            key, position = _DECODER.raw_decode(text, position)
            position = _past(text, position, f"{_SPACES}:")
            inner = _past(text, position + 1, _SPACES)
            outline.begins[str(key)] = text[position] + text[inner : inner + 1]
            if outline.begins[str(key)] == "[{":
                outline.first_keys[str(key)] = frozenset(_DECODER.raw_decode(text, inner)[0])
            _, position = _DECODER.raw_decode(text, position)
        except (ValueError, IndexError, RecursionError):  # cut off, or no JSON
            break
    return outline


def _past(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position
