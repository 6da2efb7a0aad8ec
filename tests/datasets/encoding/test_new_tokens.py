"""New tokens in conversations: one id wherever they stand, everything else as it was, and lengths
that know of them."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smolvlm.build.processor import ModelType
from smolvlm.checkpoints.new_tokens import placement_of, with_tokenizer
from smolvlm.config.new_tokens import NewToken
from smolvlm.datasets.encoding.chat import TokenRole
from smolvlm.datasets.encoding.encode import Encoder
from smolvlm.datasets.encoding.prompts import PromptSettings, read_prompt_settings
from smolvlm.records import Conversation, Grid, ImageRef, Turn

MakeTurns = Callable[..., st.SearchStrategy[tuple[Turn, ...]]]
NEW = ("<box>", "</box>", "<|two words|>", "日本<t>")
FIRST_ID, NUM_CONTROL_TOKENS, FIRST_ADDED = 49191, 17, 49152
SPECIAL = (
    "<image>",
    "<end_of_utterance>",
    "<row_1_col_1>",
    "<|im_start|>",
)
PLAIN = ("a", " ", "\n", "  2", "½", "<", "box>", "<bo", "don't", "é")


@pytest.fixture(scope="module")
def processor(processors: dict[ModelType, Any]) -> Any:
    """The tiny SmolVLM's, with new tokens."""
    own = processors["smolvlm"]
    return with_tokenizer(own, placement_of(own, [NewToken(token=token) for token in NEW]))


@pytest.fixture(scope="module")
def with_new(processor: Any) -> PromptSettings:
    return read_prompt_settings(processor)


def mixed_texts(*others: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from((*NEW, *others)), max_size=8).map("".join)


def ids_by_cutting(prompt: PromptSettings, text: str) -> list[int]:
    """Return what a text must become: its stretches between new tokens as the old tokenizer reads
    each."""
    ids: list[int] = []
    rest = text
    while rest:
        places = {rest.find(token): number for number, token in enumerate(NEW) if token in rest}
        if not places:
            return ids + list(prompt.text(rest)[0])
        place = min(places)
        token = NEW[places[place]]
        ids += [*prompt.text(rest[:place])[0], FIRST_ID + places[place]]
        rest = rest[place + len(token) :]
    return ids


@settings(deadline=None, max_examples=80)
@given(text=mixed_texts(*SPECIAL, *PLAIN))
@example(text=" <box> ")
@example(text="<box><box>12</box>\n<image>")
def test_a_text_is_cut_at_new_tokens_alone_and_is_written_back(
    prompt: PromptSettings, with_new: PromptSettings, text: str
) -> None:
    ids, offsets = with_new.text(text)
    assert list(ids) == ids_by_cutting(prompt, text)
    new_ids = range(FIRST_ID, FIRST_ID + len(NEW))
    assert all(own in new_ids or NUM_CONTROL_TOKENS <= own < FIRST_ADDED for own in ids), (
        "no special token"
    )
    assert with_new.text.decode(ids) == text, "answers keep new tokens, which are not special"
    assert [
        text[start:end] for own, (start, end) in zip(ids, offsets, strict=True) if own in new_ids
    ] == [NEW[own - FIRST_ID] for own in ids if own in new_ids]


def conversations(make: MakeTurns) -> st.SearchStrategy[tuple[Turn, ...]]:
    return make(
        make_image=lambda number: ImageRef(data=bytes([number % 256])), texts=mixed_texts(*PLAIN)
    )


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_lengths_are_those_of_what_is_encoded(
    random_turns: MakeTurns, with_new: PromptSettings, data: Any
) -> None:
    turns = data.draw(conversations(random_turns))
    conversation = Conversation(turns=turns, where="r:1", source="s")
    layouts = [Grid(rows=1, columns=2) for _ in conversation.media]
    encoder = with_new.encoder()
    lengths = encoder.lengths(conversation, layouts=layouts)
    encoded = encoder.encode_turns(turns, layouts=layouts)
    assert lengths.num_tokens == len(encoded.input_ids)
    assert lengths.num_supervised_tokens == encoded.learned.sum()
    said = "".join(
        str(block) for turn in turns if turn.role == "assistant" for block in turn.blocks
    )
    learned = encoded.input_ids[encoded.learned]
    for number, token in enumerate(NEW):
        assert np.count_nonzero(learned == FIRST_ID + number) <= said.count(token)


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
def test_they_are_one_id_in_every_turn_and_learned_where_the_assistant_says_them(
    with_new: PromptSettings, role: Any
) -> None:
    texts = {"system": "s", "user": "u", "assistant": "a"} | {role: "x <box>12</box>"}
    turns = tuple(Turn(role=own, blocks=(texts[own],)) for own in ("system", "user", "assistant"))
    encoded = with_new.encoder().encode_turns(turns, layouts=())
    for token_id in (FIRST_ID, FIRST_ID + 1):
        (place,) = np.flatnonzero(encoded.input_ids == token_id)
        assert encoded.roles[place] == TokenRole[role.upper()]
        assert encoded.learned[place] == (role == "assistant")


def test_an_answer_that_begins_with_one_begins_behind_the_space_that_is_learned(
    with_new: PromptSettings,
) -> None:
    turns = (Turn(role="user", blocks=("q",)), Turn(role="assistant", blocks=("<box>3",)))
    encoded = with_new.encoder().encode_turns(turns, layouts=())
    learned = with_new.text.pieces(encoded.input_ids[encoded.learned].tolist())
    assert learned == [" ", "<box>", "3", "<end_of_utterance>"]


def test_identity_and_copies_know_of_them(prompt: PromptSettings, with_new: PromptSettings) -> None:
    assert with_new.identity != prompt.identity, (
        "sizes that were measured without them are not read"
    )
    copy: Encoder = pickle.loads(pickle.dumps(with_new.encoder()))
    turns = (Turn(role="user", blocks=("<box>",)), Turn(role="assistant", blocks=("a",)))
    assert FIRST_ID in copy.encode_turns(turns, layouts=()).input_ids
