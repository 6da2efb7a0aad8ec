"""What is said around a clip's frames, in both wordings."""

import pytest

from smolvlm.datasets.encoding.chat import ImageSegment, TextSegment, TokenRole, render
from smolvlm.datasets.encoding.video_words import (
    LEGACY_SYSTEM,
    frame_caption,
    in_words,
    video_intro,
)
from smolvlm.records import Frames, Grid, ImageRef, Turn, VideoRef
from tests.chat_templates import RELEASED
from tests.datasets.encoding.test_chat import as_text

CLIP, PICTURE = VideoRef(data=b"clip"), ImageRef(data=b"picture")
FRAMES = Frames(numbers=(0, 30, 61), times_s=(0.0, 1.04, 62.9), duration_s=63.25)
ONE_TILE = Grid(rows=0, columns=0)
INTRO = "You are provided the following series of three frames from a 0:01:03 [H:MM:SS] video.\n"
SHOWN = "\nFrame from 00:00:<image>\nFrame from 00:01:<image>\nFrame from 01:02:<image>\n\n"


def talk(*blocks: str | ImageRef | VideoRef, system: str | None = None) -> list[Turn]:
    turns = [Turn(role="user", blocks=blocks), Turn(role="assistant", blocks=("A cat.",))]
    return [Turn(role="system", blocks=(system,)), *turns] if system else turns


def said(turns: list[Turn], *, wording: str = "released") -> str:
    kinds = {VideoRef: FRAMES, ImageRef: ONE_TILE}
    layouts = [
        kinds[type(block)] for turn in turns for block in turn.blocks if not isinstance(block, str)
    ]
    return (
        as_text(list(render(turns, layouts, wording=wording, template=RELEASED)))
        .removeprefix("<|im_start|>")
        .partition("<end")[0]
    )


@pytest.mark.parametrize(
    ("duration_s", "words"),
    [(0.9, "0:00:00"), (59.99, "0:00:59"), (3600.0, "1:00:00"), (90061.5, "1 day, 1:01:01")],
)
def test_durations_are_whole_seconds(duration_s: float, words: str) -> None:
    assert f" from a {words} [H:MM:SS] video." in video_intro(1, duration_s, wording="released")


@pytest.mark.parametrize(
    ("number", "words"), [(1, "one"), (21, "twenty-one"), (64, "sixty-four"), (100, "one hundred")]
)
def test_counts_are_words(number: int, words: str) -> None:
    assert in_words(number) == words


@pytest.mark.parametrize(
    ("time_s", "caption"),
    [
        (0.0, "00:00"),
        (0.999, "00:00"),
        (59.5, "00:59"),
        (61.0, "01:01"),
        (6000.0, "100:00"),
        (-0.04, "00:00"),
    ],
)
def test_captions_are_minutes_and_seconds(time_s: float, caption: str) -> None:
    assert frame_caption(time_s, wording="released") == f"\nFrame from {caption}:"


def test_a_clip_is_a_sentence_and_its_frames() -> None:
    assert said(talk(CLIP, "What?")) == f"User: {INTRO}{SHOWN}What?"
    assert said(talk("What?", CLIP)) == f"User: What?{INTRO}{SHOWN}"
    assert said(talk(PICTURE, CLIP, "Same?")) == f"User:<image>{INTRO}{SHOWN}Same?"


def test_nothing_that_is_said_about_a_clip_is_learned() -> None:
    segments = list(render(talk(CLIP, "What?"), [FRAMES], template=RELEASED))
    pieces = [
        piece
        for segment in segments
        if isinstance(segment, TextSegment)
        for piece in segment.pieces
    ]
    assert [piece.text for piece in pieces if piece.is_learned] == [" ", "A cat."]
    assert all(piece.role is TokenRole.TEMPLATE for piece in pieces if "rame" in piece.text)
    assert [segment.medium for segment in segments if isinstance(segment, ImageSegment)] == [
        0,
        0,
        0,
    ]


def test_the_older_wording_of_a_clip() -> None:
    intro = INTRO.replace("0:01:03", "0:01:03.250000")
    shown = SHOWN.replace("\n", "") + "Now answer the following question: "
    own = talk(CLIP, "What?", system="Be brief.")
    assert said(own, wording="legacy") == "System: Be brief."
    (_, *rest) = own
    whole = as_text(list(render(rest, [FRAMES], wording="legacy", template=RELEASED)))
    assert whole == (
        f"<|im_start|>System: {LEGACY_SYSTEM}<end_of_utterance>\nUser: "
        f"{intro}{shown}What?<end_of_utterance>\n"
        "Assistant: A cat.<end_of_utterance>\n"
    )


def test_the_older_wording_of_pictures_and_texts() -> None:
    def user_turn(turns: list[Turn], layouts: list[Grid]) -> str:
        return as_text(list(render(turns, layouts, wording="legacy", template=RELEASED))).split(
            "<end_of_utterance>\n"
        )[1]

    assert user_turn(talk(PICTURE, "What?"), [ONE_TILE]) == (
        "User: Here are some images: <image>Now answer the following question: What?"
    )
    assert user_turn(talk("So: ", PICTURE, PICTURE), [ONE_TILE] * 2) == (
        "User: So:<image><image>Now answer the following question: "
    )
    assert user_turn(talk("Hi"), []) == "User: Hi"
