"""A row in, a `Conversation` out: LLaVA, messages, question and answer columns, and The Cauldron's pairs.

Each reader turns its format into draft turns; what every conversation must satisfy (roles, order, something to learn)
is checked once, for all of them. A row that cannot be trained on exactly as it stands is an error with a mend, never a
guess.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from smolvlm.config.suggestions import did_you_mean
from smolvlm.datasets.row_media import Kind, RowContext, image_ref, row_media, video_ref
from smolvlm.datasets.row_places import DraftTurn, Place, fill_places, has_marks, split_at_marks
from smolvlm.datasets.sources import SourceSpec
from smolvlm.records import Block, Conversation, Role

_LLAVA_ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
_MESSAGE_ROLES: Mapping[str, Role] = {"user": "user", "assistant": "assistant", "system": "system"}


def to_conversation(row: Any, *, spec: SourceSpec, where: str) -> Conversation:
    """Return one row as a conversation; its media are named, not opened.

    Args:
        row: the row's values, as its file gives them.
        spec: its source: column names, the folder of its pictures, its name.
        where: `file:row`.

    Raises:
        SampleError: the row is no conversation that can be trained on; says which part, and the mend.
    """
    context = RowContext(
        where=where,
        media_root=spec.media_root,
        allow_outside_root=spec.allow_outside_root,
        source_fps=spec.source_fps,
    )
    if not isinstance(row, dict):
        raise context.error(f"the row is {_kind(row)}, not an object", fix="write the row as {...}")
    row = _with_our_names(row, spec.columns, context=context)
    name = _format_name(row, spec.columns, context=context)
    media_is_named = not spec.columns.keys().isdisjoint(("image", "images", "video", "videos"))
    listed = row_media(row, context=context, media_is_named=media_is_named)
    drafts, references = _READERS[name](row, len(listed) > 0, context)
    _check_order(drafts, context=context)
    turns = fill_places(drafts, listed, context=context)
    for turn in turns:
        if not turn.blocks or (turn.role == "assistant" and not "".join(map(str, turn.blocks)).strip()):
            fix = "give it text, or take the turn out of the row"
            raise context.error(f"an empty {turn.role} turn", fix=fix)
    return Conversation(turns=turns, where=where, source=spec.name, references=references)


def _with_our_names(row: Mapping[str, Any], columns: Mapping[str, str], *, context: RowContext) -> Mapping[str, Any]:
    """Return the row with the columns that the mixture names under our names."""
    if not columns:
        return row
    theirs = set(columns.values())
    renamed = {key: value for key, value in row.items() if key not in theirs}
    for ours, column in columns.items():
        if column not in row:
            fix = did_you_mean(column, row) or "write it as null where a row has none"
            raise context.error(f"no column `{column}`, which `columns` names as `{ours}`", fix=fix)
        renamed[ours] = row[column]
    return renamed


def _format_name(row: Mapping[str, Any], columns: Mapping[str, str], *, context: RowContext) -> str:
    """Return the key that says which format the row is in."""
    if row.get("chosen") is not None and row.get("rejected") is not None:
        raise context.error("preference rows are not available in this version", fix="take the source out")
    present = [key for key in _READERS if row.get(key) is not None]
    present = [key for key in present if key in columns] or present
    if len(present) > 1:
        fix = f"say which one to read in the source's `columns`: `{{{present[0]}: {present[0]}}}`"
        raise context.error(f"the row has {' and '.join(f'`{key}`' for key in present)}", fix=fix)
    if not present:
        keys = ", ".join(str(key) for key in row) or "none"
        what = f"the row has none of `conversations`, `messages`, `question`, `texts`; its keys are: {keys}"
        raise context.error(what, fix="name its columns in the source's `columns`: `{question: query, answer: label}`")
    return present[0]


def _read_llava(
    row: Mapping[str, Any], _has_media: bool, context: RowContext
) -> tuple[list[DraftTurn], tuple[str, ...]]:
    """Read `conversations: [{from, value}]`; a mark in the user's text is always a placeholder here."""
    drafts: list[DraftTurn] = []
    for message in _objects(row["conversations"], "conversations", context=context):
        if "from" not in message and "role" in message:
            fix = "name them in the source's `columns`: `{messages: conversations}`"
            raise context.error("`conversations` holds role/content messages", fix=fix)
        role = _role(message.get("from"), _LLAVA_ROLES, key="from", context=context)
        text = _text(message.get("value"), "a turn's `value`", context=context)
        drafts.append(_plain_turn(role, text, has_places=role == "user"))
    return drafts, ()


def _read_messages(
    row: Mapping[str, Any], has_media: bool, context: RowContext
) -> tuple[list[DraftTurn], tuple[str, ...]]:
    """Read `messages: [{role, content}]`, the content plain text or a list of typed blocks."""
    drafts: list[DraftTurn] = []
    for message in _objects(row["messages"], "messages", context=context):
        role = _role(message.get("role"), _MESSAGE_ROLES, key="role", context=context)
        content = message.get("content")
        if isinstance(content, list):
            blocks = [_typed_block(block, role=role, context=context) for block in content]
            drafts.append(DraftTurn(role=role, blocks=tuple(block for block in blocks if block != "")))
        else:
            text = _text(content, "a message's `content`", context=context)
            drafts.append(_plain_turn(role, text, has_places=role == "user" and has_media))
    return drafts, ()


def _read_question(
    row: Mapping[str, Any], has_media: bool, context: RowContext
) -> tuple[list[DraftTurn], tuple[str, ...]]:
    """Read `question` and `answer` or `answers`: the answer, or the first of several, is learned."""
    question = _text(row["question"], "`question`", context=context)
    answers = row.get("answers")
    if answers is not None and (not isinstance(answers, list) or not answers):
        fix = "write a list of texts, with at least one in it"
        raise context.error(f"`answers` is {'empty' if answers == [] else _kind(answers)}", fix=fix)
    references = tuple(_text(answer, "one of `answers`", context=context) for answer in answers or ())
    if row.get("answer") is None and not references:
        raise context.error("the row has a `question` and no `answer`", fix="add it, or name its column in `columns`")
    answer = references[0] if row.get("answer") is None else _text(row["answer"], "`answer`", context=context)
    if not answer.strip():
        raise context.error("the answer is empty", fix="write it, or take the row out")
    return [
        _plain_turn("user", question, has_places=has_media),
        _plain_turn("assistant", answer, has_places=False),
    ], references


def _read_pairs(
    row: Mapping[str, Any], has_media: bool, context: RowContext
) -> tuple[list[DraftTurn], tuple[str, ...]]:
    """Read `texts: [{user, assistant}]`: several pairs are the turns of one conversation."""
    drafts: list[DraftTurn] = []
    for pair in _objects(row["texts"], "texts", context=context):
        user = _text(pair.get("user"), "a pair's `user`", context=context)
        drafts.append(_plain_turn("user", user, has_places=has_media))
        assistant = _text(pair.get("assistant"), "a pair's `assistant`", context=context)
        drafts.append(_plain_turn("assistant", assistant, has_places=False))
    return drafts, ()


_READERS: Mapping[str, Callable[[Mapping[str, Any], bool, RowContext], tuple[list[DraftTurn], tuple[str, ...]]]] = {
    "conversations": _read_llava,
    "messages": _read_messages,
    "texts": _read_pairs,
    "question": _read_question,
}


def _plain_turn(role: Role, text: str, *, has_places: bool) -> DraftTurn:
    if has_places and has_marks(text):
        return DraftTurn(role=role, blocks=split_at_marks(text))
    return DraftTurn(role=role, blocks=(text,) if text else ())


def _typed_block(block: Any, *, role: Role, context: RowContext) -> Block | Place:
    """Return one typed block: text as it stands, a picture or clip inline, or the place of the next listed one."""
    if not isinstance(block, dict):
        raise context.error(f"a content block is {_kind(block)}", fix="write blocks as {type: text, text: ...}")
    kind = block.get("type")
    if kind == "text":
        return _text(block.get("text"), "a text block's `text`", context=context)
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


def _check_order(drafts: Sequence[DraftTurn], *, context: RowContext) -> None:
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


def _objects(value: Any, name: str, *, context: RowContext) -> list[Mapping[str, Any]]:
    """Return `value` as a list of objects, at least one."""
    if not isinstance(value, list) or not all(isinstance(member, dict) for member in value):
        raise context.error(f"`{name}` is not a list of objects", fix=f"write `{name}` as [{{...}}, ...]")
    if not value:
        raise context.error(f"`{name}` is empty", fix="fill it, or take the row out")
    return value


def _role(value: Any, roles: Mapping[str, Role], *, key: str, context: RowContext) -> Role:
    if isinstance(value, str) and value in roles:
        return roles[value]
    fix = did_you_mean(str(value), roles) or f"`{key}` is one of {', '.join(roles)}"
    raise context.error(f"unknown role {value!r}", fix=fix)


def _text(value: Any, name: str, *, context: RowContext) -> str:
    if not isinstance(value, str):
        raise context.error(f"{name} is {_kind(value)}, not text", fix="write it as text, in quotes")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise context.error(f"{name} holds half a character (a lone surrogate)", fix="mend the text") from None
    return value


def _kind(value: Any) -> str:
    """Name a JSON value's kind for a message."""
    if value is None:
        return "missing or null"
    kinds = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return kinds.get(type(value), f"a {type(value).__name__}")
