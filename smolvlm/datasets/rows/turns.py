"""The turns that a row writes: who speaks, in text or typed blocks, and in which order."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

from smolvlm.config.suggestions import did_you_mean
from smolvlm.datasets.rows.media import Kind, image_ref, video_ref
from smolvlm.datasets.rows.placeholders import DraftTurn, Place, has_marks, split_at_marks
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.errors import SampleError
from smolvlm.records import Block, Role

MESSAGE_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}


def plain_turn(role: Role, text: str, *, has_places: bool, spec: SourceSpec) -> DraftTurn:
    """Return a turn of plain text, with the places that its marks name where `has_places`."""
    if has_places and has_marks(text, spec.media_markers):
        return DraftTurn(role=role, blocks=split_at_marks(text, spec.media_markers))
    return DraftTurn(role=role, blocks=(text,) if text else ())


def message_turns(
    messages: object, name: str, *, has_media: bool, spec: SourceSpec
) -> list[DraftTurn]:
    """Return the turns of a list of {role, content}; content is text or typed blocks."""
    drafts: list[DraftTurn] = []
    for message in as_objects(messages, name):
        role = role_of(message.get("role"), MESSAGE_ROLES, key="role")
        content = message.get("content")
        if isinstance(content, list):
            blocks = [_typed_block(block, role=role, spec=spec) for block in content]
            drafts.append(
                DraftTurn(role=role, blocks=tuple(block for block in blocks if block != ""))
            )
        else:
            text = as_text(content, "a message's `content`")
            drafts.append(
                plain_turn(role, text, has_places=role == "user" and has_media, spec=spec)
            )
    return drafts


def _typed_block(block: object, *, role: Role, spec: SourceSpec) -> Block | Place:
    """Return one typed block: text, a medium inline, or the place of the next listed one."""
    if not isinstance(block, dict):
        raise SampleError(
            f"a content block is {kind_of(block)}", fix="write blocks as {type: text, text: ...}"
        )
    kind = block.get("type")
    if kind == "text":
        return as_text(block.get("text"), "a text block's `text`")
    if kind not in ("image", "video"):
        fix = (
            did_you_mean(str(kind), ("text", "image", "video"))
            or "a block's type is text, image or video"
        )
        raise SampleError(f"unknown type of content block: {kind!r}", fix=fix)
    if role != "user":
        raise SampleError(
            f"a {'picture' if kind == 'image' else 'clip'} in the {role}'s turn",
            fix="move it to a user turn",
        )
    return _inline_medium(block, kind, spec=spec)


def _inline_medium(block: Mapping[str, object], kind: Kind, *, spec: SourceSpec) -> Block | Place:
    values = [block[key] for key in (kind, "path", "bytes", "url") if block.get(key) is not None]
    bounds = (block.get("start_s"), block.get("end_s"))
    if values and kind == "video":
        return video_ref(values[0], spec=spec, bounds=bounds)
    if bounds != (None, None):
        raise SampleError(
            "`start_s` or `end_s` in a block that names no clip",
            fix="write them with the clip's path",
        )
    return image_ref(values[0], spec=spec) if values else Place(kind)


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


def role_of(value: object, roles: Mapping[str, Role], *, key: str) -> Role:
    """Return the speaker that a row's word for it means."""
    if isinstance(value, str) and value in roles:
        return roles[value]
    fix = did_you_mean(str(value), roles) or f"`{key}` is one of {', '.join(roles)}"
    raise SampleError(f"unknown role {value!r}", kind="role", fix=fix)


def as_text(value: object, name: str) -> str:
    """Return a value that must be text, and text that can be written as UTF-8."""
    if not isinstance(value, str):
        raise SampleError(
            f"{name} is {kind_of(value)}, not text", fix="write it as text, in quotes"
        )
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SampleError(
                f"{name} holds half a character (a lone surrogate)", fix="fix the text"
            ) from None
    return value


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
