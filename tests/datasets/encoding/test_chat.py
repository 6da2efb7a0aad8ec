"""The wording of a prompt, and who says which characters of it."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.chat import (
    WHOLE,
    ImageSegment,
    Piece,
    Segment,
    Supervision,
    TextSegment,
    TokenRole,
    TokenSegment,
    render,
)
from smolvlm.records import Grid, ImageRef, Turn
from tests.chat_templates import RELEASED

GRID = Grid(rows=2, columns=1)
A, B = ImageRef(data=b"a"), ImageRef(data=b"b")


def user(*blocks: str | ImageRef) -> Turn:
    return Turn(role="user", blocks=blocks)


def assistant(*blocks: str | ImageRef) -> Turn:
    return Turn(role="assistant", blocks=blocks)


def as_text(segments: Sequence[Segment]) -> str:
    return "".join(
        "".join(piece.text for piece in segment.pieces)
        if isinstance(segment, TextSegment)
        else segment.token
        if isinstance(segment, TokenSegment)
        else "<image>"
        for segment in segments
    )


def prompt_of(*turns: Turn, add_generation_prompt: bool = False) -> str:
    grids = [WHOLE for turn in turns for block in turn.blocks if not isinstance(block, str)]
    return as_text(
        list(render(turns, grids, template=RELEASED, add_generation_prompt=add_generation_prompt))
    )


def test_roles_are_capitalised_and_followed_by_a_space() -> None:
    system = Turn(role="system", blocks=("Be brief.",))
    assert prompt_of(system, user("Hi"), assistant("Ho")) == (
        "<|im_start|>System: Be brief.<end_of_utterance>\nUser: Hi<end_of_utterance>\nAssistant: "
        "Ho<end_of_utterance>\n"
    )


def test_no_space_before_a_picture_that_comes_first() -> None:
    assert prompt_of(user(A, "what?")) == "<|im_start|>User:<image>what?<end_of_utterance>\n"
    assert prompt_of(user("what?", A)) == "<|im_start|>User: what?<image><end_of_utterance>\n"
    assert (
        prompt_of(user(A, " or ", B)) == "<|im_start|>User:<image> or <image><end_of_utterance>\n"
    )


def test_the_generation_prompt_ends_at_the_colon() -> None:
    assert prompt_of(user("Hi"), add_generation_prompt=True).endswith(
        "Hi<end_of_utterance>\nAssistant:"
    )


def test_text_between_two_special_tokens_is_one_segment() -> None:
    segments = list(render([user(A, "one ", "two"), assistant("three")], [GRID], template=RELEASED))
    assert segments == [
        TokenSegment("<|im_start|>"),
        TextSegment((Piece("User:", TokenRole.TEMPLATE),)),
        ImageSegment(GRID, 0, is_prefix=True),
        TextSegment((Piece("one ", TokenRole.USER), Piece("two", TokenRole.USER))),
        TokenSegment("<end_of_utterance>", TokenRole.USER),
        TextSegment(
            (
                Piece("\nAssistant:", TokenRole.TEMPLATE),
                Piece(" ", TokenRole.ASSISTANT, is_learned=True),
                Piece("three", TokenRole.ASSISTANT, is_learned=True),
            )
        ),
        TokenSegment("<end_of_utterance>", TokenRole.ASSISTANT, is_learned=True),
        TextSegment((Piece("\n", TokenRole.TEMPLATE),)),
    ]


@settings(deadline=None)
@given(texts=st.lists(st.text(), min_size=2, max_size=6))
def test_what_is_learned_is_the_assistants_text_and_its_end(texts: list[str]) -> None:
    turns = [
        user(text) if number % 2 == 0 else assistant(text) for number, text in enumerate(texts)
    ]
    learned = ""
    for segment in render(turns, [], template=RELEASED):
        if isinstance(segment, TextSegment):
            learned += "".join(piece.text for piece in segment.pieces if piece.is_learned)
        elif isinstance(segment, TokenSegment) and segment.is_learned:
            learned += "<end>"
    assert learned == "".join(f" {text}<end>" for text in texts[1::2])


def test_learning_begins_with_the_same_turn_where_a_system_turn_is_put_in_front() -> None:
    turns = [user("a"), assistant("b"), user("c"), assistant("d")]
    for wording in ("released", "legacy"):
        segments = render(
            turns, [], template=RELEASED, wording=wording, supervision=Supervision(first_turn=2)
        )
        pieces = [piece for own in segments if isinstance(own, TextSegment) for piece in own.pieces]
        assert [piece.text for piece in pieces if piece.is_learned] == [" ", "d"]
