"""Ids of conversations with clips equal those of the released processor's class, for any clips and
texts around them.

The stock side is given black frames and the times that ours shows; which frames are shown is not
what is compared here.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.video_utils import VideoMetadata

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.media.tile_grid import grid_for
from smolvlm.records import Frames, Layout, Turn, VideoRef
from tests.parity.test_prompts import MakeTurns, assistant, message, picture, size_of, user

CLIP = VideoRef(data=b"clip")
Check = Callable[..., None]


@st.composite
def clips(draw: st.DrawFn) -> Frames:
    count = draw(st.integers(1, 70))
    times = sorted(draw(st.lists(st.floats(0, 20_000, width=32), min_size=count, max_size=count)))
    return Frames(
        numbers=tuple(range(count)), times_s=tuple(times), duration_s=draw(st.floats(0.01, 200_000))
    )


def stock_ids(processor: Any, turns: list[Turn], layouts: list[Layout], *, asks: bool) -> list[int]:
    messages = [message(turn) for turn in turns]
    blocks = [block for turn in turns for block in turn.blocks]
    for turn, own in zip(turns, messages, strict=True):
        for block, content in zip(turn.blocks, own["content"], strict=True):
            if isinstance(block, VideoRef):
                content["type"] = "video"
    text = processor.apply_chat_template(messages, add_generation_prompt=asks)
    media = [block for block in blocks if not isinstance(block, str)]
    shown = [layout for layout in layouts if isinstance(layout, Frames)]
    pictures = [
        Image.new("RGB", size_of(block)) for block in media if not isinstance(block, VideoRef)
    ]
    facts = [
        VideoMetadata(
            total_num_frames=own.num_tiles,
            fps=1.0,
            duration=own.duration_s,
            frames_indices=list(own.times_s),
        )
        for own in shown
    ]
    longest = max(
        own.num_tiles for own in shown
    )  # the stock class counts the padding of shorter clips as frames
    assert all(own.num_tiles == longest for own in shown)
    return processor(
        text=text,
        images=[pictures] if pictures else None,
        videos=[torch.zeros(own.num_tiles, 3, 8, 8, dtype=torch.uint8) for own in shown],
        images_kwargs={"size": {"longest_edge": 128}},
        videos_kwargs={
            "do_sample_frames": False,
            "video_metadata": facts,
            "size": {"longest_edge": 32},
        },
        return_tensors="pt",
    )["input_ids"][0].tolist()


@pytest.fixture(scope="module")
def check(processors: dict[str, Any], prompt: PromptSettings) -> Check:
    """Holds our ids of a conversation against the stock processor's."""
    return lambda *args, **kwargs: assert_equal(processors["smolvlm"], prompt, *args, **kwargs)


def assert_equal(
    processor: Any, prompt: PromptSettings, turns: list[Turn], clip: Frames, *, asks: bool
) -> None:
    layouts: list[Layout] = [
        clip if isinstance(block, VideoRef) else grid_for(*size_of(block), prompt.media.pictures)
        for turn in turns
        for block in turn.blocks
        if not isinstance(block, str)
    ]
    ours = prompt.encoder().encode_turns(turns, layouts=layouts, add_generation_prompt=asks)
    assert ours.input_ids.tolist() == stock_ids(processor, turns, layouts, asks=asks)
    assert not ours.learned[: ours.prefix_tokens].any()
    assert np.count_nonzero(
        ours.input_ids == prompt.tokens.image
    ) == prompt.tokens.tokens_per_tile * sum(layout.num_tiles for layout in layouts)


@settings(deadline=None, max_examples=20)
@given(clip=clips(), size=st.sampled_from((2, 4, 8)), asks=st.booleans())
def test_averaged_frames_are_said_as_a_clip_of_each_groups_first(
    processors: dict[str, Any], prompt: PromptSettings, clip: Frames, size: int, asks: bool
) -> None:
    turns = [user("Look:", CLIP, "What?"), assistant("A  12")]
    averaged = replace(clip, frames_per_slot=size)
    ours = prompt.encoder().encode_turns(turns, layouts=[averaged], add_generation_prompt=asks)
    firsts = replace(clip, numbers=clip.numbers[::size], times_s=clip.times_s[::size])
    assert ours.input_ids.tolist() == stock_ids(processors["smolvlm"], turns, [firsts], asks=asks)


TEXTS_BEFORE, TEXTS_AFTER = ("", "Look:", " \n", "2"), ("\nWhat?", "", "7", " é")


@settings(deadline=None, max_examples=40)
@given(
    clip=clips(),
    before=st.sampled_from(TEXTS_BEFORE),
    after=st.sampled_from(TEXTS_AFTER),
    asks=st.booleans(),
)
def test_one_clip(check: Check, clip: Frames, before: str, after: str, asks: bool) -> None:
    blocks = tuple(block for block in (before, CLIP, after) if block != "")
    check([user(*blocks), assistant("A  12")], clip, asks=asks)


@settings(deadline=None, max_examples=15)
@given(clip=clips(), data=st.data())
def test_clips_and_pictures_in_one_conversation(
    check: Check, random_turns: MakeTurns, clip: Frames, data: st.DataObject
) -> None:
    turns = [
        *data.draw(random_turns(make_image=picture)),
        user(CLIP, picture(3), "or", CLIP),
        assistant("Both."),
    ]
    check(turns, clip, asks=data.draw(st.booleans()))
