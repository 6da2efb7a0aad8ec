"""What a prompt says around a clip's frames and, in the older wording, around pictures.

`released` is what the released processor writes (transformers, `processing_smolvlm.py`). `legacy`
is what the released models were trained with before it (the training code of SmolVLM2): it has an
introduction before pictures too, no newline before `Frame from`, fractions of seconds, another
closing sentence, and a system turn where a row has none. It strips the white space around every
piece of text, between and around the media, and says "image tag" for a mark in another turn than
the user's.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import Literal

from smolvlm.records import Block, ImageRef, Role, Turn, VideoRef

PromptWording = Literal["released", "legacy"]

VIDEO_INTRO = (
    "You are provided the following series of {count} frames from a {duration} [H:MM:SS] video.\n"
)
IMAGE_INTRO = "Here are some images: "
RELEASED_OUTRO = "\n\n"
LEGACY_OUTRO = "Now answer the following question: "
LEGACY_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


def video_intro(num_frames: int, duration_s: float, *, wording: PromptWording) -> str:
    """Return the sentence before the frames.

    `... series of twelve frames from a 0:00:12 [H:MM:SS] video.`
    """
    seconds = duration_s if wording == "legacy" else int(duration_s)
    return VIDEO_INTRO.format(count=in_words(num_frames), duration=timedelta(seconds=seconds))


def frame_caption(time_s: float, *, wording: PromptWording) -> str:
    """Return what stands before a frame: `Frame from 01:05:`; minutes go on above 59."""
    minutes, seconds = divmod(int(max(time_s, 0.0)), 60)
    return ("" if wording == "legacy" else "\n") + f"Frame from {minutes:02d}:{seconds:02d}:"


@lru_cache(maxsize=1024)
def in_words(number: int) -> str:
    """Return a number as num2words writes it: `twenty-one`."""
    from num2words import num2words  # takes a tenth of a second to import, and only clips need it

    return str(num2words(number))


def with_legacy_words(turns: Sequence[Turn]) -> tuple[Turn, ...]:
    """Return the turns with the older wording's words around pictures, and its system turn.

    The introduction goes before pictures that begin the first user turn, the closing sentence after
    the last picture of the conversation. Clips carry theirs with their frames, but for the closing
    sentence.
    """
    system: Role = "system"
    worded = [_stripped(turn) for turn in turns]
    if worded[0].role != "system":
        worded.insert(0, Turn(role=system, blocks=(LEGACY_SYSTEM,)))
    places = [
        (number, place)
        for number, turn in enumerate(worded)
        for place, block in enumerate(turn.blocks)
        if not isinstance(block, str)
    ]
    if not places:
        return tuple(worded)
    number, place = places[-1]
    blocks = worded[number].blocks
    worded[number] = replace(
        worded[number], blocks=(*blocks[: place + 1], LEGACY_OUTRO, *blocks[place + 1 :])
    )
    first = next(number for number, turn in enumerate(worded) if turn.role == "user")
    if isinstance(worded[first].blocks[0], ImageRef):
        worded[first] = replace(worded[first], blocks=(IMAGE_INTRO, *worded[first].blocks))
    return tuple(worded)


def _stripped(turn: Turn) -> Turn:
    """Return a turn with its pieces of text stripped and empty ones left out, if any is left."""
    blocks: list[Block] = []
    for block in turn.blocks:
        if isinstance(block, str) and turn.role != "user":
            block = block.replace("<video>", "video tag").replace("<image>", "image tag")
        if not isinstance(block, str) or (block := block.strip()):
            blocks.append(block)
    return replace(turn, blocks=tuple(blocks) or turn.blocks)


def has_intro(turn: Turn, block: int, *, is_first_user_turn: bool, wording: PromptWording) -> bool:
    """Say whether a clip is introduced: always, but in the older wording only at the very front."""
    assert isinstance(turn.blocks[block], VideoRef)
    return wording == "released" or (is_first_user_turn and block == 0)
