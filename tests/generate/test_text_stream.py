"""What is shown of an answer while it is generated is never taken back, and in the end complete."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.generate.text_stream import TextStream
from tests.conftest import CHARACTERS, ODD_TEXTS

TEXTS = st.lists(st.sampled_from(ODD_TEXTS) | st.text(CHARACTERS, max_size=8), max_size=8)


def streamed(prompt: PromptSettings, ids: list[int], max_tokens: int | None = None) -> list[str]:
    pieces = list[str]()
    stream = TextStream(
        lambda kept: prompt.text.decode(kept, stop=prompt.tokens.end_of_turn),
        pieces.append,
        max_tokens=max_tokens,
    )
    stream.put(torch.empty(1, 0, dtype=torch.long))  # `generate` shows the prompt first
    for token in ids:
        stream.put(torch.tensor([token]))
    stream.end()
    assert stream.num_tokens == len(ids)
    return pieces


@given(texts=TEXTS, is_ended=st.booleans())
def test_the_pieces_are_the_answer(
    texts: list[str], is_ended: bool, prompt: PromptSettings
) -> None:
    ids = list(prompt.text("".join(texts))[0])
    more = [prompt.tokens.end_of_turn, *ids] if is_ended else []
    pieces = streamed(prompt, ids + more)
    assert "".join(pieces) == prompt.text.decode(ids).strip()
    assert "" not in pieces


@given(ids=st.lists(st.integers(0, 49_151), max_size=24), cut=st.integers(0, 24))
def test_any_tokens_at_all(ids: list[int], cut: int, prompt: PromptSettings) -> None:
    """A model may say bytes that are no text."""
    whole = prompt.text.decode(ids, stop=prompt.tokens.end_of_turn).strip()
    assert "".join(streamed(prompt, ids)) == whole
    kept = prompt.text.decode(ids[:cut], stop=prompt.tokens.end_of_turn).strip()
    assert "".join(streamed(prompt, ids, cut)) == kept


def test_a_character_is_shown_once_all_its_bytes_are_there(prompt: PromptSettings) -> None:
    ids = list(prompt.text("a 👩‍👩‍👧 b")[0])
    assert len(ids) > 6
    pieces = streamed(prompt, ids)
    assert len(pieces) > 2
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
