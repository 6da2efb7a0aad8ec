"""The options of a question: lettered lines in it, and which answers name one of them."""

import re
from collections.abc import Mapping, Sequence

from smolvlm.config.problems import shown_value
from smolvlm.datasets.rows.fields import Reading, is_absent
from smolvlm.datasets.rows.keys import OPTION_KEY
from smolvlm.datasets.rows.texts import answer_text
from smolvlm.datasets.rows.written_lists import written_list
from smolvlm.errors import SampleError
from smolvlm.media.kinds import ending_of, is_clip_ending, is_picture_ending

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_NUMBER = re.compile(r"^-?[0-9]{1,9}$")
_LETTER = re.compile(r"^\W{0,3}([A-Za-z])\W{0,3}$")
"""A letter alone: `B`, `(b)`, `**C.**`."""
_LETTERED = re.compile(r"^\s*\(?([A-Z])[.):]\s*(?=\S)")
"""How an option begins that has its letter already."""
_SPACE = re.compile(r"\s")
_LEADS = re.compile(r"^\W{0,3}[A-Z]\W")
"""An answer that begins with a letter and goes on: `B. dog`, `(A), since ...`."""


def options_of(name: str, value: object) -> list[object] | None:
    """Return the options that a column gives; None where it gives none.

    Args:
        name: the column's. `A`, `option_b` and `choice 2` are an option each.
        value: a list, text that writes one out, `{A: cat, B: dog}`, `{text: [...], label: [...]}`,
            or a list of `{label, text}`. Null is an option that the row has not: its letter stays
            free.

    Raises:
        SampleError: text that begins as a list of texts does, and is none; labels out of order.
    """
    if isinstance(value, str):
        listed = written_list(value)
        if listed is None and value[:2] in ("['", '["'):
            what = f"`{name}` begins like a list of options and is none: {shown_value(value)}"
            raise SampleError(what, fix="write it as a JSON list")
        value = value if listed is None else listed
    if isinstance(value, dict) and value:
        return _of_object(name, value)
    if isinstance(value, list):
        return _of_list(name, value)
    if OPTION_KEY.match(name) is None:
        return None
    is_missing = is_absent(value) or (isinstance(value, str) and value.lower() == "nan")
    return [None if is_missing else value]


def _of_object(name: str, value: Mapping[str, object]) -> list[object]:
    """Return the options of `{A: cat, B: dog}` or `{text: [...], label: [...]}`."""
    texts, labels = value.get("text"), value.get("label")
    if isinstance(texts, list) and isinstance(labels, list) and len(value) == 2:
        return _in_order(name, labels, texts)
    return _in_order(name, list(value), list(value.values()))


def _of_list(name: str, value: list[object]) -> list[object]:
    pairs = [member for member in value if isinstance(member, dict) and "text" in member]
    if pairs and len(pairs) == len(value) and all("label" in pair for pair in pairs):
        return _in_order(name, [pair["label"] for pair in pairs], [pair["text"] for pair in pairs])
    return value


def _in_order(name: str, labels: list[object], texts: list[object]) -> list[object]:
    """Return options whose own labels are the letters that they get, or numbers from 0 or 1."""
    told = [str(label).strip().upper() for label in labels]
    numbers = [[str(number + first) for number in range(len(texts))] for first in (0, 1)]
    if len(told) != len(texts) or told not in (list(_LETTERS[: len(texts)]), *numbers):
        what = f"the labels of `{name}`, {', '.join(told[:8])}, are not A, B, C ... in order"
        raise SampleError(what, fix="write the options as a list")
    return texts


def lettered(options: Sequence[object], reading: Reading) -> list[str]:
    """Return a line for each option, lettered on from those that the row has already.

    Options that begin with their letters already (`A. cat`, `(B) dog`) stay as they are.

    Raises:
        SampleError: an option that is no text, or names a picture; letters in another order; or
            more of them than there are.
    """
    first = len(reading.options)
    if first + len(options) > len(_LETTERS):
        what = f"{first + len(options)} options, and {len(_LETTERS)} letters"
        raise SampleError(what, fix="write them into the question's own text")
    texts = ["" if option is None else answer_text(option, "an option") for option in options]
    for text in texts:
        refuse_picture(text, "an option")
    letters = _LETTERS[first : first + len(texts)]
    matches = [_LETTERED.match(text) for text in texts if text]
    if len(matches) > 1 and all(matches):
        own = [match[1] for match in matches if match is not None]
        if own != [letter for letter, text in zip(letters, texts, strict=True) if text]:
            what = f"the options have letters of their own, {', '.join(own)}, in another order"
            raise SampleError(what, fix="sort them, or take the letters out")
        reading.options += [_LETTERED.sub("", text) for text in texts]
        return [text for text in texts if text]
    reading.options += texts
    return [f"{letter}. {text}" for letter, text in zip(letters, texts, strict=True) if text]


def refuse_picture(text: str, what: str) -> None:
    """Refuse a picture or clip that would be said by its file's name.

    Raises:
        SampleError: the text is such a name.
    """
    ending = ending_of(text[-64:])
    if _SPACE.search(text) is None and (is_picture_ending(ending) or is_clip_ending(ending)):
        raise SampleError(
            f"{what} names a picture or clip, {shown_value(text)}, and would be said as text",
            kind="unread_media",
            fix="list the files in `images`, and write `<image>` in the question where they go",
        )


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
    if isinstance(value, float) and value.is_integer() and (options or first is not None):
        value = int(value)  # of a column with gaps
    if not options:
        if first is not None and _NUMBER.match(answer_text(value, name)):
            what = f"{name} is {value!r} by `first_option_index`, and the row lists no options"
            raise SampleError(what, fix="join them, `columns: {question: [question, options]}`")
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
    if is_number and (text not in map(str.strip, options) or not isinstance(value, str)):
        what = f"{name} is {value!r} where the question lists lettered options"
        fix = (
            "set `first_option_index: 0` (or 1) on the source if answers count the options, or "
            "write the option's letter or text as the answer"
        )
        raise SampleError(what, fix=fix)
    stripped = [option.strip() for option in options]
    match = _LETTER.match(text)
    if match is not None and match[1].upper() not in letters and text not in stripped:
        what = f"{name} is {shown_value(text)}, and the options are {', '.join(letters)}"
        raise SampleError(what, fix="fix the answer or the options")
    if match is None and not _LEADS.match(text) and not _names_one(text, options):
        reading.doubts.append(f"{name}, {shown_value(text)}, is none of the options")
    return answer_text(value, name)


def _names_one(text: str, options: Sequence[str]) -> bool:
    words = text.casefold()
    return any(option.strip().casefold() in words for option in options if option.strip())
