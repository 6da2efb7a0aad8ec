"""The options of a question: lettered lines in it, and which answers name one of them."""

import re
from collections.abc import Sequence

from smolvlm.config.problems import shown_value
from smolvlm.datasets.rows.fields import Reading, is_absent
from smolvlm.datasets.rows.keys import OPTION_KEY
from smolvlm.datasets.rows.texts import answer_text
from smolvlm.datasets.rows.written_lists import written_list
from smolvlm.errors import SampleError

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER = re.compile(r"^-?[0-9]{1,9}$")
_LETTER = re.compile(r"^\W{0,3}([A-Za-z])\W{0,3}$")
"""A letter alone: `B`, `(b)`, `**C.**`."""
_LEADS = re.compile(r"^\W{0,3}[A-Z]\W")
"""An answer that begins with a letter and goes on: `B. dog`, `(A), since ...`."""


def options_of(name: str, value: object) -> list[object] | None:
    """Return the options that a column gives; None where it gives none.

    Args:
        name: the column's. `A`, `option_b` and `choice2` are an option each.
        value: a list, or text that writes one out. Null is an option that the row has not: its
            letter stays free.

    Raises:
        SampleError: text that begins as a list of texts does, and is none.
    """
    if isinstance(value, str):
        listed = written_list(value)
        if isinstance(listed, list):
            return listed
        if value[:2] in ("['", '["'):
            what = f"`{name}` begins like a list of options and is none: {shown_value(value)}"
            raise SampleError(what, fix="write it as a JSON list")
    if isinstance(value, list):
        return value
    return [None if is_absent(value) else value] if OPTION_KEY.match(name) else None


def lettered(options: Sequence[object], reading: Reading) -> list[str]:
    """Return a line for each option, lettered on from those that the row has already.

    Raises:
        SampleError: an option that is no text, or more of them than letters.
    """
    first = len(reading.options)
    if first + len(options) > len(_LETTERS):
        what = f"{first + len(options)} options, and {len(_LETTERS)} letters"
        raise SampleError(what, fix="write them into the question's own text")
    texts = ["" if option is None else answer_text(option, "an option") for option in options]
    reading.options += texts
    pairs = zip(_LETTERS[first:], texts, strict=False)
    return [f"{letter}. {text}" for letter, text in pairs if text]


def option_answer(value: object, name: str, reading: Reading) -> str:
    """Return an answer as text; where the question lists lettered options, one that may be meant.

    Args:
        value: as the row gives it.
        name: what messages call it.
        reading: the row. Its options decide: a number among them is read by the source's
            `first_option_index` alone, and becomes the option's letter. Words that are none of the
            options are noted as doubtful.

    Raises:
        SampleError: a number or a letter that names no option.
    """
    options, first = reading.options, reading.spec.first_option_index
    if not options:
        return answer_text(value, name)
    text = answer_text(value, name).strip()
    letters = [letter for letter, option in zip(_LETTERS, options, strict=False) if option]
    is_number = _NUMBER.match(text) is not None
    if first is not None and is_number:
        number = int(text) - first
        if not 0 <= number < len(options) or _LETTERS[number] not in letters:
            what = f"{name} is {text}, and the {len(letters)} options are counted from {first}"
            raise SampleError(what, fix="fix the answer, or the source's `first_option_index`")
        return _LETTERS[number]
    if is_number and (text not in options or not isinstance(value, str)):
        what = f"{name} is {value!r} where the question lists lettered options"
        fix = (
            "set `first_option_index: 0` (or 1) on the source if answers count the options, or "
            "write the option's letter or text as the answer"
        )
        raise SampleError(what, fix=fix)
    match = _LETTER.match(text)
    if match is not None and match[1].upper() not in letters and text not in options:
        what = f"{name} is {shown_value(text)}, and the options are {', '.join(letters)}"
        raise SampleError(what, fix="fix the answer or the options")
    if match is None and not _LEADS.match(text) and not _names_one(text, options):
        reading.doubts.append(f"{name}, {shown_value(text)}, is none of the options")
    return answer_text(value, name)


def _names_one(text: str, options: Sequence[str]) -> bool:
    words = text.casefold()
    return any(option.strip().casefold() in words for option in options if option.strip())
