"""A row in, a `Conversation` out.

The formats: LLaVA, messages, question and answer columns, instructions, The Cauldron's pairs,
preferences.

Each reader turns its format into draft turns; what every conversation must satisfy (roles, order,
something to learn, no key that is passed over) is checked once, for all of them. A row that cannot
be trained on exactly as it stands is an error with a mend, never a guess.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from smolvlm.config.suggestions import did_you_mean
from smolvlm.datasets.rows.fields import Fields, Reading, is_absent
from smolvlm.datasets.rows.keys import FORMAT_KEYS, LIST_COLUMNS
from smolvlm.datasets.rows.media import ListedMedia, row_media
from smolvlm.datasets.rows.placeholders import (
    DraftTurn,
    fill_places,
    has_places,
    with_numbered_places,
)
from smolvlm.datasets.rows.preferences import check_preference, read_preference
from smolvlm.datasets.rows.sources import SourceSpec, file_columns
from smolvlm.datasets.rows.turns import (
    answer_text,
    as_objects,
    as_text,
    check_order,
    history_turns,
    kind_of,
    plain_turn,
    read_turns,
    turn_weight,
    with_system,
)
from smolvlm.datasets.rows.unread import judge_unread
from smolvlm.errors import SampleError
from smolvlm.records import Conversation, Turn


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """What a format's reader makes of a row."""

    turns: list[DraftTurn]
    references: tuple[str, ...] = ()


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
    reading = Reading(spec=spec)
    fields = reading.fields(_with_our_names(_unpacked(row), reading))
    name = _format_name(fields, spec)
    listed = row_media(fields, reading)
    rejected: tuple[Turn, ...] = ()
    references: tuple[str, ...] = ()
    if name == "chosen":
        both = [
            with_system(drafts, fields, spec=spec)
            for drafts in read_preference(fields, len(listed) > 0, reading)
        ]
        (turns, is_placed), (rejected, _) = (_checked(drafts, listed, spec) for drafts in both)
        check_preference(turns, rejected)
    else:
        draft = _READERS[name](fields, len(listed) > 0, reading)
        drafts = with_system(draft.turns, fields, spec=spec)
        turns, is_placed = _checked(drafts, listed, spec)
        references = draft.references
    unread = judge_unread(reading, asks_by_columns=name in ("question", "instruction"))
    return Conversation(
        turns=turns,
        where=where,
        source=spec.name,
        references=references,
        rejected=rejected,
        unread_keys=unread,
        has_unplaced_media=len(listed) > 0 and not is_placed,
    )


def _checked(
    drafts: Sequence[DraftTurn], listed: ListedMedia, spec: SourceSpec
) -> tuple[tuple[Turn, ...], bool]:
    """Return the turns of a conversation that can be trained on, its media in their places.

    And whether the row says where its media go.
    """
    check_order(drafts)
    drafts = with_numbered_places(drafts, listed, spec)
    turns = fill_places(drafts, listed, spec=spec)
    for turn in turns:
        if not turn.blocks or (
            turn.role == "assistant" and not "".join(map(str, turn.blocks)).strip()
        ):
            fix = "give it text, or take the turn out of the row"
            raise SampleError(f"an empty {turn.role} turn", kind="empty_row", fix=fix)
    if not any(turn.weight for turn in turns if turn.role == "assistant"):
        what = "no assistant turn is learned: the weight of each is 0"
        raise SampleError(what, kind="empty_row", fix="weigh one of them, or take the row out")
    return turns, has_places(drafts)


def _unpacked(row: Mapping[str, object]) -> Mapping[str, object]:
    """Return the row of a shard that became columns (`__key__`, `json`) with its JSON's fields."""
    content = row.get("json")
    if "__key__" not in row or not isinstance(content, dict):
        return row
    return {**content, **{key: value for key, value in row.items() if key != "json"}}


def _with_our_names(row: Mapping[str, object], reading: Reading) -> Mapping[str, object]:
    """Return the row with the columns that the mixture names under our names."""
    columns = reading.spec.columns
    if not columns:
        return row
    theirs = {name for ours in columns for name in file_columns(columns, ours)}
    renamed = {key: value for key, value in row.items() if key not in theirs}
    for ours, names in columns.items():
        for name in file_columns(columns, ours):
            if name not in row:
                fix = did_you_mean(name, row) or "write it as null where a row has none"
                raise SampleError(f"no column `{name}`, which `columns` names as `{ours}`", fix=fix)
        if isinstance(names, str):
            renamed[ours] = row[names]
        else:
            values = [row[name] for name in names if not is_absent(row[name])]
            renamed[ours] = _joined(ours, values, reading)
    return renamed


def _joined(ours: str, values: Sequence[object], reading: Reading) -> object:
    """Return several columns as one value: a list of media, or texts on lines of their own.

    A list of texts is written as lettered options: `A. cat`, `B. dog`.
    """
    if ours in LIST_COLUMNS:
        return [
            member for value in values for member in (value if isinstance(value, list) else [value])
        ]
    lines: list[str] = []
    for value in values:
        if isinstance(value, list):
            reading.lists_options = True
            letters = map(chr, range(ord("A"), ord("Z") + 1))
            for letter, option in zip(letters, value, strict=False):
                lines.append(f"{letter}. {answer_text(option, f'an option of `{ours}`')}")
        elif text := as_text(value, f"a column of `{ours}`"):
            lines.append(text)
    return "\n".join(lines)


def _format_name(fields: Fields, spec: SourceSpec) -> str:
    """Return the key that says which format the row is in."""
    if fields.given(("chosen", "rejected")):
        for key in ("chosen", "rejected"):
            if not fields.has(key):
                raise SampleError(
                    f"a preference row without `{key}`", fix="add it, or take the row out"
                )
        return "chosen"
    present = fields.given(FORMAT_KEYS)
    if "instruction" in present and not fields.has("output"):
        present = tuple(key for key in present if key != "instruction")
    present = tuple(key for key in present if key in spec.columns) or present
    if len(present) > 1:
        fix = f"say which one to read in the source's `columns`: `{{{present[0]}: {present[0]}}}`"
        raise SampleError(f"the row has {' and '.join(f'`{key}`' for key in present)}", fix=fix)
    if not present:
        raise _no_format(fields)
    return present[0]


def _no_format(fields: Fields) -> SampleError:
    empty = [key for key in FORMAT_KEYS if fields.peek(key) == []]
    if empty:
        return SampleError(f"`{empty[0]}` is empty", fix="fill it, or take the row out")
    keys = list(fields)
    shown = ", ".join(key[:60] for key in keys[:20]) or "none"
    more = f" and {len(keys) - 20} more" if len(keys) > 20 else ""
    return SampleError(
        "the row has none of `conversations`, `messages`, `question`, `texts`; its keys are: "
        f"{shown}{more}",
        fix="name its columns in the source's `columns`: `{question: query, answer: label}`",
    )


def _read_conversations(fields: Fields, has_media: bool, reading: Reading) -> Draft:
    """Read `conversations: [{from, value}]`, LLaVA's format."""
    value = fields.take("conversations")
    return Draft(turns=read_turns(value, "conversations", has_media=has_media, reading=reading))


def _read_messages(fields: Fields, has_media: bool, reading: Reading) -> Draft:
    """Read `messages: [{role, content}]`, the content plain text or a list of typed blocks."""
    value = fields.take("messages")
    return Draft(turns=read_turns(value, "messages", has_media=has_media, reading=reading))


def _read_question(fields: Fields, has_media: bool, reading: Reading) -> Draft:
    """Read `question` and `answer` or `answers`: the answer, or the first, is learned."""
    question = as_text(fields.take("question"), "`question`")
    references = _references(fields)
    written = fields.take("answer")
    if written is None and not references:
        raise SampleError(
            "the row has a `question` and no `answer`",
            kind="empty_row",
            fix="add it, or name its column in `columns`",
        )
    if reading.lists_options and isinstance(written, int):
        what = f"`answer` is {written!r} where the question lists lettered options"
        raise SampleError(what, fix="write the option's letter, or its text, as the answer")
    answer = references[0] if written is None else answer_text(written, "`answer`")
    turns = _asked(fields, question, answer, has_media=has_media, reading=reading)
    return Draft(turns=turns, references=references)


def _references(fields: Fields) -> tuple[str, ...]:
    """Return the texts of `answers`: texts, numbers, or objects with an `answer` each."""
    answers = fields.peek("answers")
    fields.take("answers")
    if answers is None:
        return ()
    if not isinstance(answers, list) or not answers:
        fix = "write a list of texts, with at least one in it"
        raise SampleError(f"`answers` is {'empty' if answers == [] else kind_of(answers)}", fix=fix)
    return tuple(
        answer_text(
            answer.get("answer") if isinstance(answer, dict) else answer, "one of `answers`"
        )
        for answer in answers
    )


def _read_instruction(fields: Fields, has_media: bool, reading: Reading) -> Draft:
    """Read `instruction`, `input` and `output`, Alpaca's format."""
    question = as_text(fields.take("instruction"), "`instruction`")
    answer = answer_text(fields.take("output"), "`output`")
    return Draft(turns=_asked(fields, question, answer, has_media=has_media, reading=reading))


def _asked(
    fields: Fields, question: str, answer: str, *, has_media: bool, reading: Reading
) -> list[DraftTurn]:
    """Return a row's one question and answer, behind its history; `input` follows the question."""
    if not answer.strip():
        raise SampleError(
            "the answer is empty", kind="empty_row", fix="write it, or take the row out"
        )
    given = fields.take("input")
    if given is not None and (text := as_text(given, "`input`")):
        question = f"{question}\n{text}"
    history = fields.take("history")
    before = [] if history is None else history_turns(history, has_media=has_media, reading=reading)
    return [
        *before,
        plain_turn("user", question, has_places=has_media, spec=reading.spec),
        plain_turn("assistant", answer, has_places=False, spec=reading.spec),
    ]


def _read_pairs(fields: Fields, has_media: bool, reading: Reading) -> Draft:
    """Read `texts: [{user, assistant}]`: several pairs are the turns of one conversation."""
    drafts: list[DraftTurn] = []
    for pair in as_objects(fields.take("texts"), "texts"):
        pair_fields = reading.fields(pair, "texts[].")
        weight = turn_weight(pair_fields, "assistant")
        user = as_text(pair_fields.take("user"), "a pair's `user`")
        drafts.append(plain_turn("user", user, has_places=has_media, spec=reading.spec))
        answer = answer_text(pair_fields.take("assistant"), "a pair's `assistant`")
        drafts.append(
            plain_turn("assistant", answer, has_places=False, spec=reading.spec, weight=weight)
        )
    return Draft(turns=drafts)


_READERS: Mapping[str, Callable[[Fields, bool, Reading], Draft]] = {
    "conversations": _read_conversations,
    "messages": _read_messages,
    "texts": _read_pairs,
    "question": _read_question,
    "instruction": _read_instruction,
}
