"""Frames that share places in the text: what is said of them, and how many image tokens they
take."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.chat import render
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.records import Conversation, Frames, Grid, ImageRef, Layout, Sample, Turn, VideoRef
from tests.chat_templates import RELEASED
from tests.datasets.encoding.test_chat import as_text

CLIP, PICTURE = VideoRef(data=b"clip"), ImageRef(data=b"picture")
counts, sizes = st.integers(1, 70), st.sampled_from((1, 2, 3, 4, 8))


def frames(count: int, frames_per_slot: int) -> Frames:
    """So many frames, one every second and a quarter."""
    return Frames(
        numbers=tuple(range(0, 30 * count, 30)),
        times_s=tuple(1.25 * number for number in range(count)),
        duration_s=1.25 * count,
        frames_per_slot=frames_per_slot,
    )


def row(*blocks: str | ImageRef | VideoRef) -> Conversation:
    turns = (Turn(role="user", blocks=blocks), Turn(role="assistant", blocks=("A cat.",)))
    return Conversation(turns=turns, where="rows.jsonl:1", source="rows")


@given(count=counts, size=sizes)
def test_every_frame_is_in_exactly_one_slot_and_in_order(count: int, size: int) -> None:
    slots = frames(count, size).slots
    assert [tile for tiles in slots for tile in tiles] == list(range(count))
    assert len(slots) == -(-count // size)
    assert [len(tiles) for tiles in slots[:-1]] == [size] * (len(slots) - 1)
    assert 1 <= len(slots[-1]) <= size


@given(rows=st.integers(0, 5), columns=st.integers(1, 5))
def test_every_tile_of_a_picture_has_its_own_slot(rows: int, columns: int) -> None:
    grid = Grid(rows=rows, columns=columns if rows else 0)
    assert [list(tiles) for tiles in grid.slots] == [[tile] for tile in range(grid.num_tiles)]


@settings(deadline=None, max_examples=40)
@given(count=counts, size=sizes, has_picture=st.booleans())
def test_lengths_count_every_frame_as_a_tile_and_every_slot_in_tokens(
    prompt: PromptSettings, count: int, size: int, has_picture: bool
) -> None:
    conversation = row(*[PICTURE] * has_picture, CLIP, "What?")
    layouts: list[Layout] = [*[Grid(rows=1, columns=2)] * has_picture, frames(count, size)]
    encoder = prompt.encoder()
    lengths = encoder.lengths(conversation, layouts=layouts)
    example = encoder.encode(Sample(conversations=(conversation,)), layouts=[layouts])
    num_slots = 3 * has_picture + -(-count // size)
    assert (
        np.count_nonzero(example.input_ids == prompt.tokens.image)
        == prompt.tokens.tokens_per_tile * num_slots
    )
    assert (lengths.num_tokens, lengths.num_tiles) == (
        len(example.input_ids),
        3 * has_picture + count,
    )
    assert (
        lengths.prefix_tiles == lengths.num_tiles == len(example.tiles) == sum(example.slot_sizes)
    )
    assert len(example.slot_sizes) == num_slots
    assert [ref.tile for ref in example.tiles if ref.medium == has_picture] == list(range(count))


@pytest.mark.parametrize("wording", ["released", "legacy"])
@given(count=counts, size=sizes)
def test_the_words_are_those_about_a_clip_of_each_groups_first_frame(
    wording: str, count: int, size: int
) -> None:
    averaged = frames(count, size)
    alone = Frames(
        numbers=averaged.numbers[::size],
        times_s=averaged.times_s[::size],
        duration_s=averaged.duration_s,
    )
    turns = row(CLIP, "What?").turns
    said, expected = (
        as_text(list(render(turns, [own], wording=wording, template=RELEASED)))
        for own in (averaged, alone)
    )
    assert said == expected


def test_seven_frames_by_threes() -> None:
    shown = as_text(list(render(row(CLIP, "What?").turns, [frames(7, 3)], template=RELEASED)))
    assert shown.startswith(
        "<|im_start|>User: You are provided the following series of three frames from a 0:00:08 "
        "[H:MM:SS] video.\n"
        "\nFrame from 00:00:<image>\nFrame from 00:03:<image>\nFrame from 00:07:<image>\n\nWhat?"
    )


def test_questions_about_one_averaged_clip_show_it_once(prompt: PromptSettings) -> None:
    rows = tuple(row(CLIP, question) for question in ("\nWhat?", "\nWhen?"))
    example = prompt.encoder().encode(Sample(conversations=rows), layouts=[[frames(5, 2)]] * 2)
    assert (len(example.tiles), example.slot_sizes) == (5, (2, 2, 1))


def test_the_setting_is_part_of_the_prompts_identity(prompt: PromptSettings) -> None:
    """Kept sizes are named by it, so those of another setting are never read."""
    own = replace(prompt.media.frames, average_frames=2)
    assert replace(prompt, media=replace(prompt.media, frames=own)).identity != prompt.identity
