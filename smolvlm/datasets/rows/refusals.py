"""What is said of a key that is not read although it says something."""

from collections.abc import Mapping
from typing import Literal

from smolvlm.config.yaml_text import dump_flow
from smolvlm.datasets.rows.fields import Fields, Reading
from smolvlm.datasets.rows.keys import TOLD_WITH_QUESTIONS, WEIGHT_KEYS
from smolvlm.datasets.rows.sources import file_columns
from smolvlm.errors import SampleError

Level = Literal["row", "question_row", "turn", "block", "medium", "answer"]
"""What an object is: a row, one whose question is a column, a turn, a block of text, what shows a
picture or a clip, or one of several answers."""
_CURES: Mapping[str, str] = {
    "calls of tools": "take it out of the row: calls of tools are not learned",
    "reasoning": "write it into the answer's own text, if it is to be learned",
    "earlier turns": "write the row as `messages`",
    "a rejected answer": "name it in `columns` as `rejected`, with `prompt` and `chosen`, to train "
    "on preferences",
    "a text": "write it as a block of its own, `{type: text, text: ...}`",
    "which of the row's media is shown": "write `path` in the block, or leave the number out where "
    "the places come in the media's order",
}
"""Meaning of a refused key -> what to do about it."""


def refused_key(
    fields: Fields, key: str, meaning: str, *, level: Level, reading: Reading
) -> SampleError:
    """Return the error of a key that says something and is not read."""
    fix = _CURES.get(meaning) or "take it out of the row"
    if key in WEIGHT_KEYS and level == "question_row":
        fix = "give the source a `weight` or `repeat`, or write the row as `messages` with weights"
    elif key in WEIGHT_KEYS and level == "row":
        fix = "write it in the turns that it is about"
    elif level == "question_row" and key in TOLD_WITH_QUESTIONS:
        fix = f"say it with the question, `columns: {question_columns(key, reading)}`"
    return SampleError(
        f"`{fields.place}{key}` gives {meaning} and is not read here",
        kind="unread_key",
        fix=f"{fix}, or {leave_unread(key)}",
    )


def question_columns(key: str, reading: Reading) -> str:
    """Return the `columns` that join a key to the question."""
    asked_in = reading.asked_in or "question"
    return dump_flow({asked_in: [*file_columns(reading.spec.columns, asked_in), key]})


def leave_unread(key: str) -> str:
    """Return the fix that passes a key over on purpose."""
    return f"leave it unread on purpose with `not_read: {dump_flow([key])}` on the source"
