"""What one conversation becomes: labels, roles, image places, lengths."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smolvlm.datasets.encoding.chat import TokenRole
from smolvlm.datasets.encoding.encode import image_block
from smolvlm.datasets.encoding.encoded import EncodedConversation, target_weight
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.errors import SampleError
from smolvlm.records import Conversation, Grid, ImageRef, Sample, Turn

MakeTurns = Callable[..., st.SearchStrategy[tuple[Turn, ...]]]
LITERALS = (
    "<image>",
    "<end_of_utterance>\n",
    "User: ",
    "\nAssistant: no",
    "<|im_start|>",
    "<row_1_col_1>",
    " a",
    "é",
)
grids = st.builds(Grid, rows=st.integers(1, 3), columns=st.integers(2, 3)) | st.just(
    Grid(rows=0, columns=0)
)


def picture(number: int) -> ImageRef:
    return ImageRef(data=number.to_bytes(4, "little"))


def decode(prompt: PromptSettings, ids: Sequence[int]) -> str:
    tokenizer: Any = prompt.text._tokenizer
    return tokenizer.decode(list(ids), skip_special_tokens=False)


def learned_texts(prompt: PromptSettings, encoded: EncodedConversation) -> list[str]:
    """The text of each stretch of learned tokens."""
    positions = np.flatnonzero(encoded.learned)
    stretches = np.split(positions, np.flatnonzero(np.diff(positions) > 1) + 1)
    return [decode(prompt, encoded.input_ids[stretch].tolist()) for stretch in stretches]


def encode(
    prompt: PromptSettings, turns: Sequence[Turn], image_grids: Sequence[Grid]
) -> EncodedConversation:
    return prompt.encoder().encode_turns(turns, layouts=image_grids)


def stretches_of(turn: Turn) -> list[str]:
    """What an assistant's turn teaches: the space before it and its text, in pieces where pictures
    stand between, and its end."""
    blocks = (" ", *turn.blocks) if isinstance(turn.blocks[0], str) else turn.blocks
    kinds = groupby(blocks, key=lambda block: isinstance(block, ImageRef))
    texts = [None if is_image else "".join(map(str, group)) for is_image, group in kinds]
    return [text for text in texts[:-1] if text] + [(texts[-1] or "") + "<end_of_utterance>"]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_exactly_the_assistants_texts_and_ends_are_learned(
    prompt: PromptSettings, random_turns: MakeTurns, data: st.DataObject
) -> None:
    turns = data.draw(random_turns(make_image=picture))
    num_images = sum(isinstance(block, ImageRef) for turn in turns for block in turn.blocks)
    encoded = encode(
        prompt, turns, data.draw(st.lists(grids, min_size=num_images, max_size=num_images))
    )
    expected = [text for turn in turns if turn.role == "assistant" for text in stretches_of(turn)]
    found = learned_texts(prompt, encoded)
    assert found == expected
    special = encoded.input_ids[encoded.learned]
    assert not np.isin(
        special,
        [prompt.tokens.image, prompt.tokens.image_boundary, prompt.tokens.special["<|im_start|>"]],
    ).any()
    assert (encoded.roles[encoded.learned] == TokenRole.ASSISTANT).all()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_templates_words_in_anybodys_text_stay_text(
    prompt: PromptSettings, random_turns: MakeTurns, data: st.DataObject
) -> None:
    texts = st.lists(st.sampled_from(LITERALS), max_size=4).map("".join)
    turns = data.draw(random_turns(make_image=picture, texts=texts, max_images=1))
    num_images = sum(isinstance(block, ImageRef) for turn in turns for block in turn.blocks)
    encoded = encode(prompt, turns, [Grid(rows=0, columns=0)] * num_images)
    ids = encoded.input_ids.tolist()
    assert ids.count(prompt.tokens.end_of_turn) == len(turns)
    assert ids.count(prompt.tokens.image) == num_images * prompt.tokens.tokens_per_tile
    assert ids.count(prompt.tokens.special["<|im_start|>"]) == 1
    ends = np.flatnonzero(encoded.input_ids == prompt.tokens.end_of_turn)
    assert encoded.learned[ends].tolist() == [turn.role == "assistant" for turn in turns]


def test_literal_marks_are_learned_as_the_text_they_are(prompt: PromptSettings) -> None:
    answer = "<image> User: <end_of_utterance>"
    turns = [
        Turn(role="user", blocks=("Assistant: <image>",)),
        Turn(role="assistant", blocks=(answer,)),
    ]
    assert learned_texts(prompt, encode(prompt, turns, [])) == [f" {answer}<end_of_utterance>"]


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_every_character_of_a_speaker_is_his(
    prompt: PromptSettings, random_turns: MakeTurns, data: st.DataObject
) -> None:
    turns = data.draw(random_turns(make_image=picture, max_images=0))
    encoded = encode(prompt, turns, [])
    for role in ("system", "user", "assistant"):
        own = encoded.input_ids[encoded.roles == TokenRole[role.upper()]]
        said = "".join(f"{turn.blocks[0]}<end_of_utterance>" for turn in turns if turn.role == role)
        # A word's first token brings the template's space with it.
        assert decode(prompt, own.tolist()).replace(" ", "") == said.replace(" ", "")
    template = encoded.input_ids[encoded.roles == TokenRole.TEMPLATE]
    assert decode(prompt, template.tolist()).replace(" ", "") == "<|im_start|>" + "".join(
        f"{turn.role.capitalize()}:\n" for turn in turns
    )


def test_the_generation_prompt_is_a_prefix_and_teaches_nothing(prompt: PromptSettings) -> None:
    question, answer = (
        Turn(role="user", blocks=("Who?",)),
        Turn(role="assistant", blocks=(" A cat",)),
    )
    asked = prompt.encoder().encode_turns([question], layouts=[], add_generation_prompt=True)
    whole = encode(prompt, [question, answer], [])
    assert not asked.learned.any()
    assert decode(prompt, asked.input_ids.tolist()).endswith("\nAssistant:")
    assert np.array_equal(whole.input_ids[: len(asked.input_ids)], asked.input_ids)


def test_an_image_block_of_two_by_two_tiles(prompt: PromptSettings) -> None:
    written = decode(prompt, image_block(prompt.tokens, Grid(rows=2, columns=2)))
    place, edge = "<image>" * 4, "<fake_token_around_image>"
    rows = [
        "".join(f"{edge}<row_{row}_col_{column}>{place}" for column in (1, 2)) for row in (1, 2)
    ]
    assert written == f"{rows[0]}\n{rows[1]}\n\n{edge}<global-img>{place}{edge}"
    assert (
        decode(prompt, image_block(prompt.tokens, Grid(rows=0, columns=0)))
        == f"{edge}<global-img>{place}{edge}"
    )


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_predicted_lengths_are_the_encoded_ones(
    prompt: PromptSettings, random_turns: MakeTurns, data: st.DataObject
) -> None:
    turns = data.draw(random_turns(make_image=picture))
    conversation = Conversation(turns=turns, where="rows:1", source="s")
    num_images = len(conversation.media)
    own_grids = data.draw(st.lists(grids, min_size=num_images, max_size=num_images))
    sizes = prompt.encoder().lengths(conversation, layouts=own_grids)
    example = prompt.encoder().encode(Sample(conversations=(conversation,)), layouts=[own_grids])
    assert sizes.num_tokens == len(example.input_ids)
    assert sizes.num_positions == example.position_ids.max() + 1
    assert sizes.num_tiles == len(example.tiles)
    assert sizes.num_supervised_tokens == len(example.target_ids)
    places = np.flatnonzero(example.input_ids == prompt.tokens.image)
    assert len(places) == sizes.num_tiles * prompt.tokens.tokens_per_tile
    assert (
        places < sizes.prefix_tokens
    ).sum() == sizes.prefix_tiles * prompt.tokens.tokens_per_tile
    first = next(turn for turn in turns if turn.role == "user")
    in_prefix = [
        block
        for turn in turns[: turns.index(first) + 1]
        for block in turn.blocks
        if isinstance(block, ImageRef)
    ]
    assert sizes.prefix_tiles == sum(grid.num_tiles for grid in own_grids[: len(in_prefix)])
    if in_prefix:
        assert example.input_ids[sizes.prefix_tokens - 1] == prompt.tokens.image_boundary
    else:
        assert (sizes.prefix_tokens, sizes.prefix_tiles, sizes.prefix_key) == (0, 0, b"")


@pytest.mark.parametrize(
    ("weighting", "weight"), [("token", 1.0), ("sample", 1 / 9), ("sqrt", 1 / 3)]
)
def test_the_weight_of_one_of_nine_tokens(weighting: Any, weight: float) -> None:
    assert target_weight(9, weighting) == pytest.approx(weight)


def test_a_conversation_that_teaches_nothing_is_refused(prompt: PromptSettings) -> None:
    mute = Conversation(
        turns=(Turn(role="user", blocks=("Hi",)),), where="rows.jsonl:7", source="s"
    )
    with pytest.raises(
        SampleError,
        match=r"rows\.jsonl:7: nothing in this row is learned(.|\n)*fix: give the row an",
    ):
        prompt.encoder().encode(Sample(conversations=(mute,)), layouts=[[]])
