"""A row in, a `Conversation` out.

The formats: LLaVA, messages, question and answer columns, The Cauldron's pairs, preferences.

Each reader turns its format into draft turns; what every conversation must satisfy (roles, order,
something to learn) is checked once, for all of them. A row that cannot be trained on exactly as it
stands is an error with a mend, never a guess.
"""

from collections.abc import Callable, Mapping, Sequence

from smolvlm.config.suggestions import did_you_mean
from smolvlm.datasets.rows.media import ListedMedia, row_media
from smolvlm.datasets.rows.placeholders import DraftTurn, fill_places
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.datasets.rows.turns import (
    as_objects,
    as_text,
    check_order,
    kind_of,
    message_turns,
    plain_turn,
    role_of,
)
from smolvlm.errors import SampleError
from smolvlm.records import Conversation, Role, Turn

_LLAVA_ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


def to_conversation(row: object, *, spec: SourceSpec, where: str) -> Conversation:
    """Return one row as a conversation; its media are named, not opened.

    Args:
        row: the row's values, as its file gives them.
        spec: its source: column names, the folder of its pictures, its name.
        where: `file:row`, which the conversation keeps.

    Raises:
        SampleError: the row is no conversation that can be trained on; says which part, and the
            mend.
    """
    if not isinstance(row, dict):
        raise SampleError(f"the row is {kind_of(row)}, not an object", fix="write the row as {...}")
    row = _with_our_names(row, spec.columns)
    name = _format_name(row, spec.columns)
    media_is_named = not spec.columns.keys().isdisjoint(("image", "images", "video", "videos"))
    listed = row_media(row, spec=spec, media_is_named=media_is_named)
    if name == "chosen":
        chosen, rejected = (
            _checked(drafts, listed, spec)
            for drafts in _read_preference(row, len(listed) > 0, spec)
        )
        _check_preference(chosen, rejected)
        return Conversation(turns=chosen, rejected=rejected, where=where, source=spec.name)
    drafts, references = _READERS[name](row, len(listed) > 0, spec)
    turns = _checked(drafts, listed, spec)
    return Conversation(turns=turns, where=where, source=spec.name, references=references)


def _checked(
    drafts: Sequence[DraftTurn], listed: ListedMedia, spec: SourceSpec
) -> tuple[Turn, ...]:
    """Return the turns of a conversation that can be trained on, its media in their places."""
    check_order(drafts)
    turns = fill_places(drafts, listed, spec=spec)
    for turn in turns:
        if not turn.blocks or (
            turn.role == "assistant" and not "".join(map(str, turn.blocks)).strip()
        ):
            fix = "give it text, or take the turn out of the row"
            raise SampleError(f"an empty {turn.role} turn", kind="empty_row", fix=fix)
    return turns


def _with_our_names(row: Mapping[str, object], columns: Mapping[str, str]) -> Mapping[str, object]:
    """Return the row with the columns that the mixture names under our names."""
    if not columns:
        return row
    theirs = set(columns.values())
    renamed = {key: value for key, value in row.items() if key not in theirs}
    for ours, column in columns.items():
        if column not in row:
            fix = did_you_mean(column, row) or "write it as null where a row has none"
            raise SampleError(f"no column `{column}`, which `columns` names as `{ours}`", fix=fix)
        renamed[ours] = row[column]
    return renamed


def _format_name(row: Mapping[str, object], columns: Mapping[str, str]) -> str:
    """Return the key that says which format the row is in."""
    if row.get("chosen") is not None or row.get("rejected") is not None:
        for key in ("chosen", "rejected"):
            if row.get(key) is None:
                raise SampleError(
                    f"a preference row without `{key}`", fix="add it, or take the row out"
                )
        return "chosen"
    present = [key for key in _READERS if row.get(key) is not None]
    present = [key for key in present if key in columns] or present
    if len(present) > 1:
        fix = f"say which one to read in the source's `columns`: `{{{present[0]}: {present[0]}}}`"
        raise SampleError(f"the row has {' and '.join(f'`{key}`' for key in present)}", fix=fix)
    if not present:
        keys = ", ".join(str(key) for key in row) or "none"
        what = (
            f"the row has none of `conversations`, `messages`, `question`, `texts`; its keys are: "
            f"{keys}"
        )
        raise SampleError(
            what,
            fix="name its columns in the source's `columns`: `{question: query, answer: label}`",
        )
    return present[0]


def _read_llava(
    row: Mapping[str, object], _has_media: bool, spec: SourceSpec
) -> tuple[list[DraftTurn], tuple[str, ...]]:
    """Read `conversations: [{from, value}]`; a mark in the user's text is always a place."""
    drafts: list[DraftTurn] = []
    for message in as_objects(row["conversations"], "conversations"):
        if "from" not in message and "role" in message:
            fix = "name them in the source's `columns`: `{messages: conversations}`"
            raise SampleError("`conversations` holds role/content messages", fix=fix)
        role = role_of(message.get("from"), _LLAVA_ROLES, key="from")
        said = as_text(message.get("value"), "a turn's `value`")
        drafts.append(plain_turn(role, said, has_places=role == "user", spec=spec))
    return drafts, ()


def _read_messages(
    row: Mapping[str, object], has_media: bool, spec: SourceSpec
) -> tuple[list[DraftTurn], tuple[str, ...]]:
    """Read `messages: [{role, content}]`, the content plain text or a list of typed blocks."""
    return message_turns(row["messages"], "messages", has_media=has_media, spec=spec), ()


def _read_question(
    row: Mapping[str, object], has_media: bool, spec: SourceSpec
) -> tuple[list[DraftTurn], tuple[str, ...]]:
    """Read `question` and `answer` or `answers`: the answer, or the first, is learned."""
    question = as_text(row["question"], "`question`")
    answers = row.get("answers")
    if answers is not None and (not isinstance(answers, list) or not answers):
        fix = "write a list of texts, with at least one in it"
        raise SampleError(f"`answers` is {'empty' if answers == [] else kind_of(answers)}", fix=fix)
    references = tuple(as_text(answer, "one of `answers`") for answer in answers or ())
    if row.get("answer") is None and not references:
        raise SampleError(
            "the row has a `question` and no `answer`",
            kind="empty_row",
            fix="add it, or name its column in `columns`",
        )
    answer = references[0] if row.get("answer") is None else as_text(row["answer"], "`answer`")
    if not answer.strip():
        raise SampleError(
            "the answer is empty", kind="empty_row", fix="write it, or take the row out"
        )
    return [
        plain_turn("user", question, has_places=has_media, spec=spec),
        plain_turn("assistant", answer, has_places=False, spec=spec),
    ], references


def _read_pairs(
    row: Mapping[str, object], has_media: bool, spec: SourceSpec
) -> tuple[list[DraftTurn], tuple[str, ...]]:
    """Read `texts: [{user, assistant}]`: several pairs are the turns of one conversation."""
    drafts: list[DraftTurn] = []
    for pair in as_objects(row["texts"], "texts"):
        user = as_text(pair.get("user"), "a pair's `user`")
        drafts.append(plain_turn("user", user, has_places=has_media, spec=spec))
        assistant = as_text(pair.get("assistant"), "a pair's `assistant`")
        drafts.append(plain_turn("assistant", assistant, has_places=False, spec=spec))
    return drafts, ()


def _read_preference(
    row: Mapping[str, object], has_media: bool, spec: SourceSpec
) -> tuple[list[DraftTurn], list[DraftTurn]]:
    """Read `prompt`, `chosen`, `rejected`: each text, or a list of messages.

    Without `prompt` the other two hold all of it.
    """

    def turns(key: str, role: Role) -> list[DraftTurn]:
        value = row.get(key)
        if isinstance(value, list):
            return message_turns(value, key, has_media=has_media, spec=spec)
        text = as_text(value, f"`{key}`")
        return [plain_turn(role, text, has_places=role == "user" and has_media, spec=spec)]

    if row.get("prompt") is None:
        for key in ("chosen", "rejected"):
            if not isinstance(row[key], list):
                fix = "add the prompt, or name its column in the mixture: columns: {prompt: NAME}"
                raise SampleError(
                    f"`{key}` is {kind_of(row[key])}, and there is no `prompt`", fix=fix
                )
        return turns("chosen", "assistant"), turns("rejected", "assistant")
    prompt = turns("prompt", "user")
    return [*prompt, *turns("chosen", "assistant")], [*prompt, *turns("rejected", "assistant")]


def _check_preference(chosen: Sequence[Turn], rejected: Sequence[Turn]) -> None:
    """Check that the two differ, and first in what the assistant says."""
    if chosen == rejected:
        raise SampleError(
            "`chosen` and `rejected` are the same", fix="take the row out: nothing is preferred"
        )
    pairs = zip(chosen, rejected, strict=False)
    first = next((number for number, (one, other) in enumerate(pairs) if one != other), None)
    if first is None or chosen[first].role != "assistant" or rejected[first].role != "assistant":
        raise SampleError(
            "`chosen` and `rejected` do not answer the same prompt", fix="make them begin alike"
        )
    if any(
        not isinstance(block, str)
        for turn in (*chosen[first:], *rejected[first:])
        for block in turn.blocks
    ):
        what = "a picture or clip after the place where `chosen` and `rejected` part"
        raise SampleError(
            what, fix="put it into the prompt, or end both with the first answers that differ"
        )


_READERS: Mapping[
    str, Callable[[Mapping[str, object], bool, SourceSpec], tuple[list[DraftTurn], tuple[str, ...]]]
] = {
    "conversations": _read_llava,
    "messages": _read_messages,
    "texts": _read_pairs,
    "question": _read_question,
}
