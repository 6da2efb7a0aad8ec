"""The turns that a row writes: who speaks, in text or typed blocks, and in which order."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

from smolvlm.config.problems import shown_value
from smolvlm.config.suggestions import did_you_mean
from smolvlm.datasets.rows.clip_bounds import has_bounds, take_bounds
from smolvlm.datasets.rows.fields import Fields, Reading
from smolvlm.datasets.rows.keys import RATE_KEYS, SYSTEM_KEYS, WEIGHT_KEYS
from smolvlm.datasets.rows.marks import Place, has_marks, split_at_marks
from smolvlm.datasets.rows.media import Kind
from smolvlm.datasets.rows.placeholders import DraftTurn
from smolvlm.datasets.rows.references import image_ref, video_ref
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.errors import SampleError
from smolvlm.records import Block, Role

MESSAGE_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}
LLAVA_ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_BLOCK_TYPES: Mapping[str, Literal["text", "image", "video"]] = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "video": "video",
    "video_url": "video",
}
_MEDIUM_KEYS = ("image", "video", "image_url", "video_url", "source", "path", "url", "file")
"""Of a block: what names its picture or clip."""
_BYTES_KEYS = ("bytes", "base64", "data")


def plain_turn(
    role: Role, text: str, *, has_places: bool, spec: SourceSpec, weight: float = 1.0
) -> DraftTurn:
    """Return a turn of plain text, with the places that its marks name where `has_places`."""
    return DraftTurn(role=role, blocks=_text_blocks(text, has_places, spec), weight=weight)


def _text_blocks(text: str, has_places: bool, spec: SourceSpec) -> tuple[str | Place, ...]:
    if has_places and has_marks(text, spec.media_markers):
        return split_at_marks(text, spec.media_markers, keeps_newlines=spec.keeps_mark_newlines)
    return (text,) if text else ()


def read_turns(
    messages: object, name: str, *, has_media: bool, reading: Reading
) -> list[DraftTurn]:
    """Return the turns of a list of {role, content} or of {from, value}, whichever each is.

    The content is text or typed blocks. In the text of a user's {from, value} a mark is always a
    place; elsewhere it is one where the row lists media, and no block is a place of its own.
    """
    drafts: list[DraftTurn] = []
    objects = as_objects(messages, name)
    marks_in_blocks = has_media and not any(map(_has_typed_place, objects))
    for message in objects:
        fields = reading.fields(message, f"{name}[].")
        is_llava = (fields.has("from") and not fields.has("role")) or "value" in message
        keys = ("from", "value") if is_llava else ("role", "content")
        role = role_of(fields.take(keys[0]), LLAVA_ROLES if is_llava else MESSAGE_ROLES, keys[0])
        weight = turn_weight(fields, role)
        has_places = role == "user" and (is_llava or has_media)
        content = fields.take(keys[1]) if message.get(keys[1]) != [] else []
        if isinstance(content, list):
            blocks = tuple(
                piece
                for block in content
                for piece in _typed_block(
                    block, role, role == "user" and marks_in_blocks, f"{name}[].", reading
                )
            )
            drafts.append(DraftTurn(role=role, blocks=blocks, weight=weight))
            continue
        what = "a turn's `value`" if is_llava else "a message's `content`"
        text = (answer_text if role == "assistant" else as_text)(content, what)
        drafts.append(
            plain_turn(role, text, has_places=has_places, spec=reading.spec, weight=weight)
        )
    return drafts


def _has_typed_place(message: Mapping[str, object]) -> bool:
    """Say whether a message has a block that is the place of a listed medium."""
    content = message.get("content")
    return isinstance(content, list) and any(
        isinstance(block, dict)
        and _BLOCK_TYPES.get(str(block.get("type")), "text") != "text"
        and all(block.get(key) is None for key in (*_MEDIUM_KEYS, *_BYTES_KEYS))
        for block in content
    )


def turn_weight(fields: Fields, role: Role) -> float:
    """Return what a turn's loss is multiplied by: its `weight`, or 0 where `loss` or `train` is
    false.

    Raises:
        SampleError: two such keys, a value that is no weight, or a turn of the user's or the
            system's that is to be learned.
    """
    key, value = fields.take_one(WEIGHT_KEYS, what="what is learned of the turn")
    if value is None:
        return 1.0
    if not isinstance(value, int | float) or not 0 <= value < float("inf"):
        fix = "write true, false, or a number, 0 or more"
        raise SampleError(f"`{fields.place}{key}` is {shown_value(value)}", fix=fix)
    if role != "assistant" and value:
        what = f"`{fields.place}{key}` is {value!r} in a turn of the {role}'s, which is not learned"
        fix = "take it out; `data.supervise: text` learns what users say"
        raise SampleError(what, kind="unread_key", fix=fix)
    return float(value)


def _typed_block(
    block: object, role: Role, has_places: bool, place: str, reading: Reading
) -> tuple[Block | Place, ...]:
    """Return one typed block: text with its marks, a medium inline, or the place of the next."""
    if not isinstance(block, dict):
        raise SampleError(
            f"a content block is {kind_of(block)}", fix="write blocks as {type: text, text: ...}"
        )
    fields = reading.fields(block, f"{place}content[].")
    written = fields.take("type")
    kind = _BLOCK_TYPES.get(written) if isinstance(written, str) else None
    if kind is None:
        fix = (
            did_you_mean(str(written), ("text", "image", "video"))
            or "a block's type is text, image or video"
        )
        raise SampleError(f"unknown type of content block: {shown_value(written)}", fix=fix)
    if kind == "text":
        text = fields.take("text")
        is_answer = role == "assistant"
        text = (answer_text if is_answer else as_text)(text, "a text block's `text`")
        return _text_blocks(text, has_places, reading.spec)
    if role != "user":
        raise SampleError(
            f"a {'picture' if kind == 'image' else 'clip'} in the {role}'s turn",
            fix="move it to a user turn",
        )
    return (_inline_medium(fields, kind, reading),)


def _inline_medium(fields: Fields, kind: Kind, reading: Reading) -> Block | Place:
    if fields.peek("text") in (None, ""):
        fields.take("text")
    _, value = fields.take_one(_MEDIUM_KEYS, what="the medium")
    _, data = fields.take_one(_BYTES_KEYS, what="the medium's bytes")
    value = data if data is not None else value  # {bytes, path}: the path is their name
    if kind == "video" and value is not None:
        return video_ref(_with_rate(value, fields), reading, take_bounds(fields))
    if has_bounds(fields):
        raise SampleError(
            "`start_s` or `end_s` in a block that names no clip",
            fix="write them with the clip's path",
        )
    return Place(kind) if value is None else image_ref(value, reading)


def _with_rate(value: object, fields: Fields) -> object:
    """Return a list of frames with the rate that the block gives for them."""
    rate = fields.given(RATE_KEYS)
    if isinstance(value, list) and rate:
        return {"frames": value, rate[0]: fields.take(rate[0])}
    return value


def history_turns(value: object, *, has_media: bool, reading: Reading) -> list[DraftTurn]:
    """Return the turns of a `history`: pairs of question and answer, or messages.

    Raises:
        SampleError: it is neither.
    """
    if isinstance(value, list) and all(isinstance(member, dict) for member in value):
        return read_turns(value, "history", has_media=has_media, reading=reading)
    drafts: list[DraftTurn] = []
    for pair in value if isinstance(value, list) else [value]:
        if not isinstance(pair, list) or len(pair) != 2:
            fix = "write it as [[question, answer], ...], or as messages"
            raise SampleError("`history` is no list of questions and answers", fix=fix)
        asked = as_text(pair[0], "a question of `history`")
        answered = answer_text(pair[1], "an answer of `history`")
        drafts.append(plain_turn("user", asked, has_places=has_media, spec=reading.spec))
        drafts.append(plain_turn("assistant", answered, has_places=False, spec=reading.spec))
    return drafts


def with_system(
    drafts: Sequence[DraftTurn], fields: Fields, *, spec: SourceSpec
) -> list[DraftTurn]:
    """Return the turns behind the system turn that a column of the row gives, if one does.

    Raises:
        SampleError: the turns have another one.
    """
    key, value = fields.take_one(SYSTEM_KEYS, what="the system turn")
    text = "" if value is None else as_text(value, f"`{key}`")
    if not text:
        return list(drafts)
    system = plain_turn("system", text, has_places=False, spec=spec)
    if drafts and drafts[0].role == "system":
        if drafts[0].blocks != system.blocks:
            what = f"`{key}` and the first turn are different system turns"
            raise SampleError(what, kind="role", fix="keep one of the two")
        return list(drafts)
    return [system, *drafts]


def check_order(drafts: Sequence[DraftTurn]) -> None:
    """Check the order: at most one system turn, then user and assistant, an answer last."""
    roles = [draft.role for draft in drafts]
    if "assistant" not in roles:
        raise SampleError(
            "no assistant turn, so nothing to learn",
            kind="empty_row",
            fix="add the answer, or take the row out",
        )
    turns = roles[1:] if roles[0] == "system" else roles
    if "system" in turns:
        raise SampleError(
            "a system turn after the first turn", kind="role", fix="put it first, or take it out"
        )
    if turns[0] == "assistant":
        raise SampleError(
            "the assistant speaks first",
            kind="role",
            fix="put a user turn before it, or take the turn out",
        )
    for earlier, later in pairwise(turns):
        if earlier == later:
            raise SampleError(
                f"two {earlier} turns in a row",
                kind="role",
                fix="join them, or add the turn between them",
            )
    if turns[-1] == "user":
        raise SampleError(
            "the last turn is the user's, with no answer",
            kind="role",
            fix="add the answer, or take the turn out",
        )


def as_objects(value: object, name: str) -> list[Mapping[str, object]]:
    """Return `value` as a list of objects, at least one."""
    if not isinstance(value, list) or not all(isinstance(member, dict) for member in value):
        raise SampleError(
            f"`{name}` is not a list of objects", fix=f"write `{name}` as [{{...}}, ...]"
        )
    if not value:
        raise SampleError(f"`{name}` is empty", fix="fill it, or take the row out")
    return value


def role_of(value: object, roles: Mapping[str, Role], key: str) -> Role:
    """Return the speaker that a row's word for it means."""
    if isinstance(value, str) and value in roles:
        return roles[value]
    fix = did_you_mean(str(value), roles) or f"`{key}` is one of {', '.join(roles)}"
    raise SampleError(f"unknown role {shown_value(value)}", kind="role", fix=fix)


def as_text(value: object, name: str) -> str:
    """Return a value that must be text, and text that can be written as UTF-8."""
    if not isinstance(value, str):
        fix = "write it as text: in quotes in JSON, a column of type string in Parquet"
        raise SampleError(f"{name} is {kind_of(value)}, not text", fix=fix)
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
