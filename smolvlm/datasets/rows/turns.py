"""The turns that a row writes: who speaks, in text or typed blocks, and in which order."""

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

from smolvlm.config.problems import shown_value
from smolvlm.config.suggestions import did_you_mean
from smolvlm.datasets.rows.blocks import (
    BlockContext,
    block_kind,
    has_typed_place,
    text_blocks,
    typed_block,
)
from smolvlm.datasets.rows.fields import Fields, Reading
from smolvlm.datasets.rows.keys import REFUSED_IN_TURNS, SYSTEM_KEYS, TOOL_KEYS, WEIGHT_KEYS
from smolvlm.datasets.rows.placeholders import DraftTurn
from smolvlm.datasets.rows.refusals import refused_key
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.datasets.rows.texts import answer_text, as_objects, as_text
from smolvlm.datasets.rows.written_lists import may_be_list, written_list
from smolvlm.errors import SampleError
from smolvlm.records import Role

ROLES: Mapping[str, Role] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "developer": "system",
}


def plain_turn(
    role: Role, text: str, *, has_places: bool, spec: SourceSpec, weight: float = 1.0
) -> DraftTurn:
    """Return a turn of plain text, with the places that its marks name where `has_places`."""
    return DraftTurn(role=role, blocks=text_blocks(text, has_places, spec), weight=weight)


def read_turns(
    messages: object, name: str, *, has_media: bool, reading: Reading
) -> list[DraftTurn]:
    """Return the turns of a list of {role, content} or of {from, value}, whichever each is.

    The content is text, or a list of typed blocks and texts. In the text of a user's {from, value}
    a mark is always a place; elsewhere it is one where the row lists media, and no block is a place
    of its own.
    """
    drafts: list[DraftTurn] = []
    objects = as_objects(messages, name)
    marks_in_blocks = has_media and not any(has_typed_place(message) for message in objects)
    for message in objects:
        fields = reading.fields(message, f"{name}[].")
        key = "from" if fields.has("from") and not fields.has("role") else "role"
        is_llava = key == "from" or ("value" in message and "content" not in message)
        role = role_of(fields.take(key), key)
        weight = turn_weight(fields, role)
        content = _content(fields, message, is_llava=is_llava, reading=reading)
        if isinstance(content, list):
            context = BlockContext(
                role=role, marks_are_places=marks_in_blocks, place=f"{name}[].", reading=reading
            )
            blocks = tuple(piece for block in content for piece in typed_block(block, context))
            drafts.append(DraftTurn(role=role, blocks=blocks, weight=weight))
            continue
        what = "a turn's `value`" if is_llava else "a message's `content`"
        text = (answer_text if role == "assistant" else as_text)(content, what)
        has_places = role == "user" and (is_llava or has_media)
        drafts.append(
            plain_turn(role, text, has_places=has_places, spec=reading.spec, weight=weight)
        )
    return drafts


def _content(
    fields: Fields, message: Mapping[str, object], *, is_llava: bool, reading: Reading
) -> object:
    """Return what a turn says; `[]` is a list here, not absent.

    Raises:
        SampleError: it says nothing, and calls tools instead.
    """
    usual = "value" if is_llava else "content"
    if usual in message or "text" not in message:
        value = fields.take(usual)
        if value is None and message.get(usual) == []:
            return []
        calls = fields.given(TOOL_KEYS)
        if value is None and calls:
            raise refused_key(
                fields, calls[0], REFUSED_IN_TURNS[calls[0]], level="turn", reading=reading
            )
        return _blocks_in(value) if isinstance(value, str) and may_be_list(value) else value
    return fields.take("text")


def _blocks_in(text: str) -> object:
    """Return the typed blocks that a text writes out in JSON, or the text where it is something
    else."""
    listed = written_list(text)
    is_blocks = isinstance(listed, list) and all(
        isinstance(block, dict) and "type" in block and block_kind(block) is not None
        for block in listed
    )
    return listed if is_blocks and listed else text


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
    if not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        fix = "write true, false, or a number, 0 or more"
        raise SampleError(f"`{fields.place}{key}` is {shown_value(value)}", fix=fix)
    if role != "assistant" and value:
        what = f"`{fields.place}{key}` is {value!r} in a turn of the {role}'s, which is not learned"
        fix = "take it out; `data.supervise: text` learns what users say"
        raise SampleError(what, kind="unread_key", fix=fix)
    return float(value)


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


def role_of(value: object, key: str) -> Role:
    """Return the speaker that a row's word for it means, capitals or not."""
    if isinstance(value, str) and (role := ROLES.get(value) or ROLES.get(value.lower())):
        return role
    fix = did_you_mean(str(value), ROLES) or f"`{key}` is one of {', '.join(ROLES)}"
    raise SampleError(f"unknown role {shown_value(value)}", kind="role", fix=fix)
