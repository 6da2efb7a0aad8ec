"""A row in, a `Conversation` out.

The formats: LLaVA, messages, question and answer columns, instructions, The Cauldron's pairs,
preferences.

Each reader turns its format into draft turns; what every conversation must satisfy (roles, order,
something to learn, no key that is passed over) is checked once, for all of them. A row that cannot
be trained on exactly as it stands is an error with a mend, never a guess.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from smolvlm.config.problems import shown_value
from smolvlm.config.yaml_text import dump_flow
from smolvlm.datasets.rows.columns import with_our_names
from smolvlm.datasets.rows.fields import Fields, Reading
from smolvlm.datasets.rows.keys import (
    CAPTION_KEYS,
    FORMAT_KEYS,
    ID_OF_MEDIA,
    KNOWN_IN_ANSWERS,
    QUESTION_LIKE,
)
from smolvlm.datasets.rows.media import ListedMedia, row_media
from smolvlm.datasets.rows.options import option_answer
from smolvlm.datasets.rows.placeholders import (
    DraftTurn,
    fill_places,
    has_places,
    with_numbered_places,
)
from smolvlm.datasets.rows.preferences import check_preference, read_preference
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.datasets.rows.suspects import misspelt_as
from smolvlm.datasets.rows.texts import answer_text, as_objects, as_text, kind_of
from smolvlm.datasets.rows.turns import (
    check_order,
    history_turns,
    plain_turn,
    read_turns,
    turn_weight,
    with_system,
)
from smolvlm.datasets.rows.unread import judge_unread
from smolvlm.datasets.rows.written_lists import may_be_list, written_list
from smolvlm.errors import SampleError
from smolvlm.records import Conversation, Turn

_TURN_KEYS = frozenset({"role", "from", "content", "value"})


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
    fields = reading.fields(with_our_names(row, reading))
    name = _format_name(fields, spec)
    listed = row_media(fields, reading)
    rejected: tuple[Turn, ...] = ()
    references: tuple[str, ...] = ()
    if name in ("question", "instruction"):
        reading.asked_in = name
    elif name == "chosen" and isinstance(fields.peek("prompt"), str):
        reading.asked_in = "prompt"
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
    unread = judge_unread(reading)
    if not any(not isinstance(block, str) for turn in turns for block in turn.blocks):
        named = [key for key in unread if ID_OF_MEDIA.match(key)]
        reading.doubts.extend(
            f"`{key}` names a picture or clip, and none is shown" for key in named
        )
    return Conversation(
        turns=turns,
        where=where,
        source=spec.name,
        references=references,
        rejected=rejected,
        unread_keys=unread,
        left_out_keys=tuple(sorted(reading.left_out)),
        doubts=tuple(reading.doubts),
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


def _format_name(fields: Fields, spec: SourceSpec) -> str:
    """Return the key that says which format the row is in."""
    if fields.given(("chosen", "rejected")):
        for key in ("chosen", "rejected"):
            if not fields.has(key):
                fix = misspelt_as(fields, {key}) or "add it, or take the row out"
                raise SampleError(f"a preference row without `{key}`", fix=fix)
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
    told = ", ".join(f"`{key}`" for key in FORMAT_KEYS)
    return SampleError(
        f"the row has none of {told}, nor `chosen` and `rejected`; its keys are: {shown}{more}",
        fix=_turns_to_name(fields) or misspelt_as(fields, FORMAT_KEYS) or _columns_to_name(fields),
    )


def _turns_to_name(fields: Fields) -> str | None:
    """Return what a source may say of a key that holds turns; None where there is none."""
    for key in fields:
        value = fields.peek(key)
        first = value[0] if isinstance(value, list) and value else None
        if isinstance(first, dict) and not _TURN_KEYS.isdisjoint(first):
            columns = dump_flow({"messages": key})
            return f"name its turns in the source's `columns`: `{columns}`"
    return None


def _columns_to_name(fields: Fields) -> str:
    """Return what a source of rows in no known format may say: a question, or captions."""
    answer = next((key for key in CAPTION_KEYS if fields.has(key)), None)
    question = next((key for key in QUESTION_LIKE if isinstance(fields.peek(key), str)), None)
    if question is not None:
        columns = dump_flow({"question": question, "answer": answer or "label"})
        return f"name its columns in the source's `columns`: `{columns}`"
    fix = "name its columns in the source's `columns`: `{question: query, answer: label}`"
    if answer is not None:
        fix = (
            "of captions the question is the same in every row: on the source, `constants: "
            "{question: Describe the picture.}`"
            + ("" if answer == "answer" else f", `columns: {dump_flow({'answer': answer})}`")
        )
    return fix


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
    question = answer_text(fields.take("question"), "`question`")
    references = _references(fields, reading)
    written = fields.take("answer")
    if isinstance(written, str) and may_be_list(written):
        listed = written_list(written)
        written = listed if isinstance(listed, list) else written
    if isinstance(written, list) and written and not references:
        references = _of_answers(written, reading)
        written = None
    if written is None and not references:
        raise SampleError(
            "the row has a `question` and no `answer`",
            kind="empty_row",
            fix=misspelt_as(fields, ("answer", "answers"))
            or "add it, or name its column in `columns`",
        )
    answer = references[0] if written is None else option_answer(written, "`answer`", reading)
    turns = _asked(fields, question, answer, has_media=has_media, reading=reading)
    return Draft(turns=turns, references=references)


def _references(fields: Fields, reading: Reading) -> tuple[str, ...]:
    """Return the texts of `answers`: texts, numbers, objects with an `answer` or a `text` each, or
    SQuAD's object of lists."""
    answers = fields.peek("answers")
    fields.take("answers")
    if answers is None:
        return ()
    if isinstance(answers, dict) and isinstance(answers.get("text"), list):
        reading.fields(answers, "answers.").take("text")
        answers = answers["text"]
    if not isinstance(answers, list) or not answers:
        fix = "write a list of texts, with at least one in it"
        raise SampleError(f"`answers` is {'empty' if answers == [] else kind_of(answers)}", fix=fix)
    return _of_answers(answers, reading)


def _of_answers(answers: Sequence[object], reading: Reading) -> tuple[str, ...]:
    """Return several answers as texts; the first is learned, which is noted as doubtful where it
    is not the one given most often."""
    texts = tuple(
        option_answer(_said(answer, reading), "one of `answers`", reading) for answer in answers
    )
    most, count = Counter(texts).most_common(1)[0]
    if count > texts.count(texts[0]):
        doubt = f"of `answers` the first is learned, {shown_value(texts[0])}"
        reading.doubts.append(f"{doubt}, and {shown_value(most)} is given more often")
    elif reading.options and len(set(texts)) > 1:
        reading.doubts.append("of several `answers` among the options the first alone is learned")
    return texts


def _said(answer: object, reading: Reading) -> object:
    if not isinstance(answer, dict):
        return answer
    _, said = reading.fields(answer, "answers[].").take_one(KNOWN_IN_ANSWERS, what="the answer")
    return said


def _read_instruction(fields: Fields, has_media: bool, reading: Reading) -> Draft:
    """Read `instruction`, `input` and `output`, Alpaca's format."""
    question = as_text(fields.take("instruction"), "`instruction`")
    answer = option_answer(fields.take("output"), "`output`", reading)
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
