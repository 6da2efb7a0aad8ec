"""The turns that a row writes: who speaks, in plain text or typed blocks, and in which order they must come."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from smolvlm.config.suggestions import did_you_mean
from smolvlm.datasets.rows.media import Kind, RowContext, image_ref, video_ref
from smolvlm.datasets.rows.placeholders import DraftTurn, Place, has_marks, split_at_marks
from smolvlm.records import Block, Role

MESSAGE_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}


def plain_turn(role: Role, given: str, *, has_places: bool, context: RowContext) -> DraftTurn:
    """Return a turn of plain text, with the places that its marks name where `has_places`."""
    if has_places and has_marks(given, context.media_markers):
        return DraftTurn(role=role, blocks=split_at_marks(given, context.media_markers))
    return DraftTurn(role=role, blocks=(given,) if given else ())


def message_turns(messages: Any, name: str, *, has_media: bool, context: RowContext) -> list[DraftTurn]:
    """Return the turns of a list of {role, content}, the content plain text or a list of typed blocks."""
    drafts: list[DraftTurn] = []
    for message in as_objects(messages, name, context=context):
        role = role_of(message.get("role"), MESSAGE_ROLES, key="role", context=context)
        content = message.get("content")
        if isinstance(content, list):
            blocks = [_typed_block(block, role=role, context=context) for block in content]
            drafts.append(DraftTurn(role=role, blocks=tuple(block for block in blocks if block != "")))
        else:
            given = as_text(content, "a message's `content`", context=context)
            drafts.append(plain_turn(role, given, has_places=role == "user" and has_media, context=context))
    return drafts


def _typed_block(block: Any, *, role: Role, context: RowContext) -> Block | Place:
    """Return one typed block: text as it stands, a picture or clip inline, or the place of the next listed one."""
    if not isinstance(block, dict):
        raise context.error(f"a content block is {kind_of(block)}", fix="write blocks as {type: text, text: ...}")
    kind = block.get("type")
    if kind == "text":
        return as_text(block.get("text"), "a text block's `text`", context=context)
    if kind not in ("image", "video"):
        fix = did_you_mean(str(kind), ("text", "image", "video")) or "a block's type is text, image or video"
        raise context.error(f"unknown type of content block: {kind!r}", fix=fix)
    if role != "user":
        raise context.error(
            f"a {'picture' if kind == 'image' else 'clip'} in the {role}'s turn", fix="move it to a user turn"
        )
    return _inline_medium(block, kind, context=context)


def _inline_medium(block: Mapping[str, Any], kind: Kind, *, context: RowContext) -> Block | Place:
    given = [block[key] for key in (kind, "path", "bytes", "url") if block.get(key) is not None]
    bounds = (block.get("start_s"), block.get("end_s"))
    if given and kind == "video":
        return video_ref(given[0], context=context, bounds=bounds)
    if bounds != (None, None):
        raise context.error("`start_s` or `end_s` in a block that names no clip", fix="write them with the clip's path")
    return image_ref(given[0], context=context) if given else Place(kind)


def check_order(drafts: Sequence[DraftTurn], *, context: RowContext) -> None:
    """Check that the turns are: at most one of the system, then user and assistant by turns, ending with an answer."""
    roles = [draft.role for draft in drafts]
    if "assistant" not in roles:
        raise context.error("no assistant turn, so nothing to learn", fix="add the answer, or take the row out")
    turns = roles[1:] if roles[0] == "system" else roles
    if "system" in turns:
        raise context.error("a system turn after the first turn", fix="put it first, or take it out")
    if turns[0] == "assistant":
        raise context.error("the assistant speaks first", fix="put a user turn before it, or take the turn out")
    for earlier, later in pairwise(turns):
        if earlier == later:
            raise context.error(f"two {earlier} turns in a row", fix="join them, or add the turn between them")
    if turns[-1] == "user":
        raise context.error("the last turn is the user's, with no answer", fix="add the answer, or take the turn out")


def as_objects(value: Any, name: str, *, context: RowContext) -> list[Mapping[str, Any]]:
    """Return `value` as a list of objects, at least one."""
    if not isinstance(value, list) or not all(isinstance(member, dict) for member in value):
        raise context.error(f"`{name}` is not a list of objects", fix=f"write `{name}` as [{{...}}, ...]")
    if not value:
        raise context.error(f"`{name}` is empty", fix="fill it, or take the row out")
    return value


def role_of(value: Any, roles: Mapping[str, Role], *, key: str, context: RowContext) -> Role:
    """Return the speaker that a row's word for it means."""
    if isinstance(value, str) and value in roles:
        return roles[value]
    fix = did_you_mean(str(value), roles) or f"`{key}` is one of {', '.join(roles)}"
    raise context.error(f"unknown role {value!r}", fix=fix)


def as_text(value: Any, name: str, *, context: RowContext) -> str:
    """Return a value that must be text, and text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise context.error(f"{name} is {kind_of(value)}, not text", fix="write it as text, in quotes")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise context.error(f"{name} holds half a character (a lone surrogate)", fix="fix the text") from None
    return value


def kind_of(value: Any) -> str:
    """Name a JSON value's kind for a message."""
    if value is None:
        return "missing or null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), f"a {type(value).__name__}")
