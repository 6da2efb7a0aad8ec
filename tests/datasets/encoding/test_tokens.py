"""Text to ids that never are special, and the special ids looked up in the checkpoint's own
tokenizer."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import AutoProcessor

from smolvlm.build.processor import ModelType
from smolvlm.datasets.encoding.encode import image_block
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.encoding.tokens import TextEncoder, read_prompt_tokens
from smolvlm.errors import ConfigError
from smolvlm.records import Grid
from tests.chat_templates import RELEASED

LITERALS = (
    "<image>",
    "<end_of_utterance>",
    "<fake_token_around_image>",
    "<global-img>",
    "<row_1_col_1>",
)
NUM_CONTROL_TOKENS, TEXT_VOCABULARY_SIZE = 17, 49152
characters = st.characters(
    max_codepoint=0xFFFF, exclude_categories=["Cs"], exclude_characters="\x04\x06\x13\x14\x16\x1d"
)
"""Those that the vocabulary can write: it lacks tokens for these six, and for planes that nothing
is assigned to."""
texts = st.lists(
    st.sampled_from((*LITERALS, "<|im_start|>", " ", "\n", "a")) | st.text(characters, max_size=5),
    max_size=8,
).map("".join)


@settings(deadline=None, max_examples=60)
@given(text=texts)
@example(text="".join(LITERALS))
def test_no_text_becomes_a_special_token_and_none_is_lost(
    prompt: PromptSettings, text: str
) -> None:
    tokenizer: Any = prompt.text._tokenizer
    ids, offsets = prompt.text(text)
    assert not [
        index for index in ids if index < NUM_CONTROL_TOKENS or index >= TEXT_VOCABULARY_SIZE
    ]
    assert tokenizer.decode(list(ids), skip_special_tokens=False) == text
    assert len(ids) == len(offsets)
    assert [end for _, end in offsets] == sorted(end for _, end in offsets)
    assert (offsets[-1][1] if text else 0) == len(text)


def test_a_pickled_encoder_writes_the_same_ids(prompt: PromptSettings) -> None:
    copy: TextEncoder = pickle.loads(pickle.dumps(prompt.text))
    for text in ("a  2 é <image>", "long " * 100):
        assert copy(text) == prompt.text(text)


def test_decoding_stops_where_told_and_leaves_special_tokens_out(prompt: PromptSettings) -> None:
    ids, end = list(prompt.text(" A cat.")[0]), prompt.tokens.end_of_turn
    assert prompt.text.decode([*ids, end, *ids], stop=end) == " A cat."
    assert prompt.text.decode([*ids, end, *ids]) == " A cat. A cat."
    assert prompt.text.decode(ids, stop=end) == " A cat."


def test_pieces_show_special_tokens_by_name(prompt: PromptSettings) -> None:
    ids = [prompt.tokens.special["<|im_start|>"], *prompt.text(" cat")[0], prompt.tokens.image]
    assert prompt.text.pieces(ids) == ["<|im_start|>", " cat", "<image>"]


def test_characters_without_a_token_leave_nothing_behind(prompt: PromptSettings) -> None:
    assert prompt.text("\x04a\x06")[0] == prompt.text("a")[0]


@pytest.mark.parametrize(("model_type", "is_mended"), [("smolvlm", False), ("idefics3", True)])
def test_plain_loading_still_loses_the_splitting_of_digits(
    checkpoint_folders: dict[ModelType, Path],
    processors: dict[ModelType, Any],
    model_type: ModelType,
    is_mended: bool,
) -> None:
    """The seam that `load_processor` mends; when this fails, transformers reads tokenizer.json for
    Idefics3 too."""
    folder = checkpoint_folders[model_type]
    assert (
        json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
        == "GPT2Tokenizer"
    )
    plain = AutoProcessor.from_pretrained(folder)
    pinned = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in ("a  2", "1  ²3"):
        expected = pinned.encode(text).ids
        assert processors[model_type].tokenizer(text)["input_ids"] == expected
        assert (plain.tokenizer(text)["input_ids"] != expected) == is_mended


def test_special_ids_are_the_tokenizers(prompt: PromptSettings) -> None:
    tokens = prompt.tokens
    assert (
        tokens.special["<|im_start|>"],
        tokens.end_of_turn,
        tokens.image,
        tokens.image_boundary,
    ) == (
        1,
        49279,
        49190,
        49189,
    )
    assert tokens.global_view == (49152,)
    assert tokens.row_column[1, 1] == (49153,)
    assert tokens.row_column[6, 6] == (49188,)
    assert len(tokens.row_column) == 36
    assert (tokens.pad, tokens.tokens_per_tile) == (2, 4)


@pytest.mark.parametrize(
    "missing", ["<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>"]
)
def test_a_tokenizer_without_a_needed_token_is_refused(missing: str) -> None:
    tokenizer = Tokenizer(BPE())
    tokenizer.add_special_tokens(sorted({"<|im_start|>", *LITERALS} - {missing}))
    with pytest.raises(ConfigError) as caught:
        read_prompt_tokens(tokenizer, RELEASED, tokens_per_tile=4, pad=2)
    assert str(caught.value).startswith(
        f"the tokenizer has no token {missing}\n  fix: use the tokenizer"
    )


def test_tags_that_the_vocabulary_lacks_fall_apart_as_they_do_in_the_whole_text(
    prompt: PromptSettings,
) -> None:
    """The first 2.2B checkpoint has no tag for tiles: its processor writes them out and tokenizes
    them as text."""
    own: Any = prompt.text._tokenizer
    content = json.loads(own.to_str())
    tags = ("<global-img>", "<row_")
    content["added_tokens"] = [
        token for token in content["added_tokens"] if not token["content"].startswith(tags)
    ]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokens = read_prompt_tokens(tokenizer, RELEASED, tokens_per_tile=2, pad=2)
    assert len(tokens.global_view) > 1
    place, edge = "<image><image>", "<fake_token_around_image>"
    rows = [
        "".join(f"{edge}<row_{row}_col_{column}>{place}" for column in (1, 2)) for row in (1, 2)
    ]
    written = "\n".join(rows) + f"\n\n{edge}<global-img>{place}{edge}"
    assert image_block(tokens, Grid(rows=2, columns=2)) == tokenizer.encode(written).ids
