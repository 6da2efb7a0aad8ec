"""Which ids new tokens take, and that a tokenizer's description changes nowhere else."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from smolvlm.build.tokenizer import tokenizer_json
from smolvlm.checkpoints.vocabulary import Placement, Wanted, place_tokens
from smolvlm.errors import ConfigError
from tests.first_release import VOCABULARY, first_release

FIRST_RESERVED, NUM_RESERVED, LENGTH = 49191, 88, 49280


def place(*tokens: str, text: str | None = None) -> Placement:
    wanted = [Wanted(token=token, words=token) for token in tokens]
    return place_tokens(text or tokenizer_json(), wanted)


def test_reserved_ids_go_first_and_then_the_vocabulary_grows() -> None:
    names = [f"<t{number}>" for number in range(NUM_RESERVED + 2)]
    placement = place(*names)
    assert list(placement.ids.values()) == [
        *range(FIRST_RESERVED, FIRST_RESERVED + NUM_RESERVED),
        LENGTH,
        LENGTH + 1,
    ]
    assert placement.num_tokens == LENGTH + 2
    assert [own.replaces for own in placement.placed[-3:]] == [
        "<|reserved_special_token_87|>",
        None,
        None,
    ]
    assert place("<t0>").num_tokens == LENGTH


def test_a_vocabulary_without_reserved_ids_grows_at_once(
    checkpoint_folders: Any, tmp_path: Path
) -> None:
    folder = first_release(checkpoint_folders["smolvlm"], tmp_path / "v1")
    placement = place("<a>", "<b>", text=(folder / "tokenizer.json").read_text())
    assert (placement.ids, placement.num_tokens) == (
        {"<a>": VOCABULARY, "<b>": VOCABULARY + 1},
        VOCABULARY + 2,
    )


def test_one_entry_of_the_file_changes_and_nothing_else() -> None:
    before, after = tokenizer_json().splitlines(), place("<box>").tokenizer_json.splitlines()
    changed = [
        (old.strip(), new.strip()) for old, new in zip(before, after, strict=True) if old != new
    ]
    assert changed == [
        ('"content": "<|reserved_special_token_0|>",', '"content": "<box>",'),
        ('"special": true', '"special": false'),
    ]
    compact = json.dumps(json.loads(tokenizer_json()), ensure_ascii=False, separators=(",", ":"))
    renamed = place("<box>", text=compact).tokenizer_json
    assert "\n" not in renamed[:100]
    assert json.loads(renamed) == json.loads("\n".join(after))


def test_reserved_names_within_the_vocabulary_itself_are_renamed_there_too() -> None:
    content = json.loads(tokenizer_json())
    entry = next(
        own for own in content["added_tokens"] if own["content"] == "<|reserved_special_token_0|>"
    )
    content["model"]["vocab"][entry["content"]] = entry["id"]
    placement = place("<box>", text=json.dumps(content))
    vocabulary = json.loads(placement.tokenizer_json)["model"]["vocab"]
    assert vocabulary["<box>"] == placement.ids["<box>"] == FIRST_RESERVED
    assert "<|reserved_special_token_0|>" not in vocabulary


def test_a_token_that_was_added_before_keeps_its_id() -> None:
    first = place("<a>", "<b>")
    again = place("<b>", "<c>", text=first.tokenizer_json)
    assert again.ids == {"<b>": FIRST_RESERVED + 1, "<c>": FIRST_RESERVED + 2}
    assert [own.token for own in again.placed] == ["<c>"]
    same = place("<b>", "<a>", text=first.tokenizer_json)
    assert (same.placed, same.tokenizer_json) == ((), first.tokenizer_json)


@pytest.mark.parametrize(
    ("token", "message", "fix"),
    [
        (
            "<image>",
            "<image> is a special token of the vocabulary already",
            "train.trainable_tokens",
        ),
        (
            "<|reserved_special_token_5|>",
            "is a special token of the vocabulary already",
            "train.trainable_tokens",
        ),
        ("cat", "cat is one token already", "take it out"),
        ("<image>s", "the new token <image>s holds the special token <image>", "rename it"),
        ("Assistant:", "the prompt itself is written with Assistant:", "choose another"),
        (": yes", "the prompt itself is written with : yes", "choose another"),
        ("ñé", "the tokenizer would write 'ñé' as", "put it in brackets"),
        ("\x04", "nothing in '\\x04' has a token to begin from", "give it a `description`"),
    ],
)
def test_what_cannot_become_a_token_says_why(token: str, message: str, fix: str) -> None:
    with pytest.raises(ConfigError) as caught:
        place(token)
    assert message in caught.value.what
    assert fix in (caught.value.fix or "")


def test_pieces_are_those_of_the_words_with_special_tokens_read_as_text() -> None:
    plain = Tokenizer.from_str(tokenizer_json())
    placed = place_tokens(
        tokenizer_json(),
        [Wanted(token="<a>", words="end of a box"), Wanted(token="<b>", words="near <image>")],
    ).placed
    assert placed[0].pieces == tuple(plain.encode("end of a box").ids)
    assert placed[1].pieces == tuple(plain.encode("near").ids) + tuple(
        plain.encode(" <").ids
    ) + tuple(plain.encode("image").ids) + tuple(plain.encode(">").ids)


names = st.text(
    st.characters(codec="ascii", categories=["L", "N", "P", "S"]), min_size=1, max_size=6
).map(lambda text: f"<|x{text}|>")


@settings(deadline=None, max_examples=2)
@given(tokens=st.lists(names, min_size=9, max_size=9, unique=True))
def test_each_is_read_and_written_as_one_token(tokens: list[str]) -> None:
    placement = place(*tokens)
    tokenizer = Tokenizer.from_str(placement.tokenizer_json)
    assert list(placement.ids) == tokens
    for token, token_id in placement.ids.items():
        assert tokenizer.encode(f"a {token} b").ids.count(token_id) == 1
        assert tokenizer.decode([token_id]) == token
