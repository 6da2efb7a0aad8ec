"""Rows changed as people and programs change them: keys, types, places, marks, odd text.

In: a whole row and a seeded generator. Out: a changed row, and whether it means the same (then it
has to be read as before) or has values in other places (then no place says who speaks).
"""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random
from typing import Any

Path = tuple[str | int, ...]
DEEP = 40
KEYS = (
    *("question", "answer", "answers", "conversations", "messages", "texts", "instruction"),
    *("input", "output", "system", "history", "prompt", "chosen", "rejected", "image", "images"),
    *("video", "from", "value", "role", "content", "type", "text", "user", "assistant", "path"),
    *(
        "weight",
        "start_s",
        "end_s",
        "fps",
        "index",
        "loss",
        "options",
        "caption",
        "label",
        "id",
        "file_name",
        "Question",
        "anwser",
        "imgae",
    ),
    *(
        "",
        " ",
        "question ",
        "__proto__",
        "json",
        "key",
        "members",
        "\x00",
        "ключ",
        "question\u200b",
    ),
)
MARKS = (
    *("<image>", "<video>", "<image 1>", "<image_2>", "<IMAGE>", "[IMG]", "<|image_pad|>"),
    *("<image>\n", "{image}", "&lt;image&gt;", "![a](b.png)", "<end_of_utterance>"),
    *("<fake_token_around_image>", "<global-img>", "<row_1_col_1>", "<|im_start|>", "User:"),
)
ODD_TEXTS = (
    *("", " ", "\n", "\u00a0", "\u200b", "\x00", "\x1b[2J", "\u202e", "\ufeff", "\ud800", "\udfff"),
    *(
        "\U0010ffff",
        "e\u0301" * 9,
        "\u0661\u0662",
        "ﬁ",
        "İ",
        "👩‍👩‍👧",
        "null",
        "NaN",
        "[]",
        "{}",
        "['a']",
    ),
    *('["a", "b"]', "[1, 2", "'", '"', "\\", ",", ";", "\t", "=1+1", "a" * 3000, "-", "~", "/"),
    *("file://[x", "http://[::1", "caf\udce9.png", "é" * 80, "9" * 400, "1e999", "0x10", "²"),
    *("..", "../../etc/passwd", "file:///etc/passwd", "http://127.0.0.1/a.png", "s3://a/b.png"),
    *("data:image/png;base64,", "data:,x", "iVBORw0KGgo=", "C:\\a.png", "a.png\x00.jpg", "true"),
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, -0.0, 10**30, 10**400, 1e308, float("inf"), float("nan")),
    *([], {}, [None], [[]], [{}], {"": None}, [0, "a"], {"text": None}, {"bytes": None}),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangedRow:
    """A row after some changes."""

    row: Any
    is_same: bool = True
    """Whether it means what it meant."""
    is_moved: bool = False
    """Whether values stand elsewhere than they were made for."""


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield (path, value) of everything in a row that is no object and no list."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*path, number))
    else:
        yield path, value


def _holders(value: Any) -> list[Any]:
    """Return every object and every list of a row that has something in it."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if isinstance(value, dict | list) and value else []
    return found + [holder for own in inner for holder in _holders(own)]


def _place(row: Any, random: Random) -> tuple[Any, Any]:
    """Return a random holder and a key or number in it."""
    holder = random.choice(_holders(row))
    return holder, random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))


def _objects(row: Any) -> list[dict[str, Any]]:
    return [holder for holder in _holders(row) if isinstance(holder, dict)]


def _lists(row: Any) -> list[list[Any]]:
    return [holder for holder in _holders(row) if isinstance(holder, list)]


def _reorder_keys(row: Any, random: Random) -> None:
    for holder in _objects(row):
        items = list(holder.items())
        random.shuffle(items)
        holder.clear()
        holder.update(items)


def _add_empty_key(row: Any, random: Random) -> None:
    if isinstance(row, dict):
        row[f"empty{random.randrange(9)}"] = random.choice((None, [], {}))


def _drop(row: Any, random: Random) -> None:
    holder, place = _place(row, random)
    del holder[place]


def _rename(row: Any, random: Random) -> None:
    holder = random.choice(_objects(row))
    key = random.choice(list(holder))
    new = random.choice(KEYS) if random.random() < 0.6 else _misspelt(key, random)
    items = [(new if own == key else own, value) for own, value in holder.items()]
    holder.clear()
    holder.update(items)


def _misspelt(key: str, random: Random) -> str:
    if not key:
        return "x"
    at = random.randrange(len(key))
    return random.choice(
        (
            key[:at] + key[at + 1 :],
            key[:at] + key[at] + key[at:],
            key.upper(),
            key.capitalize(),
            f"{key} ",
            f"{key}s",
            f"{key}_2",
        )
    )


def _add_key(row: Any, random: Random) -> None:
    holder = random.choice(_objects(row))
    holder[random.choice(KEYS)] = random.choice(random.choice((ODD_VALUES, ODD_TEXTS, MARKS)))


def _set_odd(row: Any, random: Random) -> None:
    holder, place = _place(row, random)
    holder[place] = copy.deepcopy(random.choice(random.choice((ODD_VALUES, ODD_TEXTS))))


def _insert_text(row: Any, random: Random) -> None:
    texts = [path for path, value in leaves(row) if isinstance(value, str)]
    if not texts:
        return
    *to, last = random.choice(texts)
    holder = row
    for step in to:
        holder = holder[step]
    text, piece = holder[last], random.choice(random.choice((MARKS, ODD_TEXTS)))
    at = random.choice((0, len(text), random.randrange(len(text) + 1)))
    holder[last] = text[:at] + piece + text[at:]


def _wrap(row: Any, random: Random) -> None:
    holder, place = _place(row, random)
    value = holder[place]
    key = random.choice(("text", "value", "path", "bytes", "url", "content", "type", "answer"))
    holder[place] = random.choice(
        ([value], [value, copy.deepcopy(value)], {key: value}, json.dumps(value), repr(value))
    )


def _deepen(row: Any, random: Random) -> None:
    holder, place = _place(row, random)
    value = holder[place]
    for _ in range(random.choice((2, DEEP))):
        value = [value] if random.random() < 0.5 else {"a": value}
    holder[place] = value


def _swap(row: Any, random: Random) -> None:
    first, one = _place(row, random)
    second, other = _place(row, random)
    value = copy.deepcopy(first[one])
    first[one] = copy.deepcopy(second[other])
    second[other] = value


def _shuffle_list(row: Any, random: Random) -> None:
    if found := _lists(row):
        random.shuffle(random.choice(found))


def _double_element(row: Any, random: Random) -> None:
    if found := _lists(row):
        own = random.choice(found)
        own.insert(random.randrange(len(own) + 1), copy.deepcopy(random.choice(own)))


def _name_otherwise(row: Any, random: Random) -> None:
    """Name a picture by another path: some lead to the same file, some nowhere."""
    named = [
        (holder, place)
        for holder in _holders(row)
        for place, value in (holder.items() if isinstance(holder, dict) else enumerate(holder))
        if isinstance(value, str) and value.endswith(".png")
    ]
    if not named:
        return
    holder, place = random.choice(named)
    forms = ("./{}", "././{}", "x/../{}", "../{}", "/{}", "{}?", "{} ", "file:{}", "{}/", "//{}")
    holder[place] = random.choice(forms).format(holder[place])


Edit = Callable[[Any, Random], None]
KEPT: tuple[Edit, ...] = (_reorder_keys, _add_empty_key)
"""What changes no meaning."""
MOVED: tuple[Edit, ...] = (_rename, _swap, _shuffle_list, _double_element, _wrap, _add_key)
"""What may make another turn, or another speaker, of a value."""
CHANGED: tuple[Edit, ...] = (_drop, _set_odd, _insert_text, _deepen, _name_otherwise)
EDITS = (*KEPT, *MOVED, *CHANGED, _insert_text, _set_odd, _drop)


def changed_row(row: Any, random: Random) -> ChangedRow:
    """Return a row after up to three changes; a third of all rows stay as they are."""
    changed = ChangedRow(row=copy.deepcopy(row))
    for _ in range(random.choice((0, 1, 1, 2, 3)) if random.random() < 0.8 else 0):
        if not _objects(changed.row):
            break
        edit = random.choice(EDITS)
        edit(changed.row, random)
        changed = replace(
            changed,
            is_same=changed.is_same and edit in KEPT,
            is_moved=changed.is_moved or edit in MOVED,
        )
    if random.random() < 0.01:
        odd = random.choice((*ODD_VALUES, "text", [changed.row]))
        return ChangedRow(row=odd, is_same=False, is_moved=True)
    return changed
