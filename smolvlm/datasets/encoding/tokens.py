"""The ids a checkpoint's prompts are made of, read from its own processor.

In: a tokenizer. Out: the ids of the special tokens and a text encoder that never yields one of
them. Special tokens are spliced in by id and text is encoded with special tokens switched off, so a
literal `<image>` in a user's words stays text. Text between two special tokens is encoded as one
string, which gives the ids that encoding the whole prompt at once would give: the tokenizer cuts at
special tokens before it does anything else.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from tokenizers import Tokenizer

from smolvlm.datasets.encoding.split_template import ChatTemplate
from smolvlm.errors import ConfigError
from smolvlm.media.tile_grid import MAX_TILES_PER_SIDE

TokenIds = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTokens:
    """Ids of everything in a prompt that is not somebody's text."""

    special: Mapping[str, int]
    """Special tokens that the chat template writes, by their text."""
    end_of_turn: int
    """What ends an answer, and generation."""
    image: int
    """`<image>`: a place for one feature vector."""
    image_boundary: int
    """`<fake_token_around_image>`."""
    global_view: TokenIds
    """`<global-img>`; several pieces where the vocabulary lacks the tag."""
    row_column: Mapping[tuple[int, int], TokenIds]
    """`<row_r_col_c>` by (r, c), counted from 1."""
    row_end: TokenIds
    """The newline after a row of tiles."""
    last_row_end: TokenIds
    """The newline after the last row together with the one before the global view."""
    pad: int
    tokens_per_tile: int


class TextEncoder:
    """Text to ids and character spans; what prompts are built of is read as plain text.

    A checkpoint's other special tokens (tags of a document, places in a picture) are ids wherever
    somebody writes them, and decoding keeps them: they are what such a checkpoint was made to say.
    """

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: Collection[str]) -> None:
        """
        Args:
            tokenizer: the checkpoint's.
            prompt_tokens: special tokens that stay text where a conversation's own words name them.
        """
        self.prompt_tokens = frozenset(prompt_tokens)
        self.special_tokens = _special_tokens(tokenizer) | self.prompt_tokens
        """All of the checkpoint's, those of the prompt among them."""
        self._tokenizer = Tokenizer.from_str(_with_special(tokenizer.to_str(), self.prompt_tokens))
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._cached = lru_cache(maxsize=32768)(self._encode)

    def within_rows(self, num_rows: int) -> "TextEncoder":
        """Return an encoder that yields no id without a row in the model's embedding.

        Added tokens behind the last row stay text where somebody writes them.

        Raises:
            ConfigError: the vocabulary itself, or a token of the prompt, is larger.
        """
        added = self._tokenizer.get_added_tokens_decoder()
        rowless = {token.content for number, token in added.items() if number >= num_rows}
        plain = self._tokenizer.get_vocab(with_added_tokens=True)
        beyond = [name for name, number in plain.items() if number >= num_rows]
        needed = sorted(self.prompt_tokens & rowless) or sorted(set(beyond) - rowless)
        if needed:
            raise ConfigError(
                f"the tokenizer has {needed[0]!r} as {plain[needed[0]]:,}, and the model has rows "
                f"for {num_rows:,} tokens",
                fix="use the tokenizer that belongs to the checkpoint",
            )
        if not rowless:
            return self
        return _restored(self.definition(), self.prompt_tokens | rowless, self.special_tokens)

    def _encode(self, text: str) -> tuple[TokenIds, tuple[tuple[int, int], ...]]:
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return tuple(encoding.ids), tuple(encoding.offsets)

    def __call__(self, text: str) -> tuple[TokenIds, tuple[tuple[int, int], ...]]:
        """Return the ids of `text` and each token's (start, end) characters in it."""
        return self._cached(text) if len(text) <= 256 else self._encode(text)

    def decode(self, ids: Sequence[int], *, stop: int | None = None) -> str:
        """Return the text of ids up to the first `stop`, tokens of the prompt left out."""
        kept = list(ids)
        return self._tokenizer.decode(
            kept[: kept.index(stop)] if stop in kept else kept, skip_special_tokens=True
        )

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Return the text of each token by itself, special tokens by name (for display)."""
        return [self._tokenizer.decode([token], skip_special_tokens=False) for token in ids]

    def definition(self) -> str:
        """Return the tokenizer as JSON text."""
        return self._tokenizer.to_str()

    def __reduce__(self):
        return _restored, (self._tokenizer.to_str(), self.prompt_tokens, self.special_tokens)


def _restored(
    tokenizer_json: str, prompt_tokens: frozenset[str], special_tokens: frozenset[str]
) -> TextEncoder:
    """Return an encoder of another process; its tokenizer no longer says what was special."""
    encoder = TextEncoder(Tokenizer.from_str(tokenizer_json), prompt_tokens)
    encoder.special_tokens = special_tokens
    return encoder


def _special_tokens(tokenizer: Tokenizer) -> frozenset[str]:
    added = tokenizer.get_added_tokens_decoder().values()
    return frozenset(token.content for token in added if token.special)


def _with_special(tokenizer_json: str, special: Collection[str]) -> str:
    """Return a tokenizer's JSON text in which these added tokens are special, and no others."""
    content = json.loads(tokenizer_json)
    for token in content["added_tokens"]:
        token["special"] = token["content"] in special
    return json.dumps(content, ensure_ascii=False)


def read_prompt_tokens(
    tokenizer: Tokenizer, template: ChatTemplate, *, tokens_per_tile: int, pad: int | None
) -> PromptTokens:
    """Look up the prompt's special tokens in a checkpoint's tokenizer.

    Args:
        tokenizer: the checkpoint's own.
        template: the checkpoint's.
        tokens_per_tile: image tokens a tile costs.
        pad: id that fills up batches in generation; None is what ends an answer.

    Raises:
        ConfigError: the tokenizer lacks a token that every SmolVLM prompt needs.
    """

    def one(token: str) -> int:
        index = tokenizer.token_to_id(token)
        if index is None:
            raise ConfigError(
                f"the tokenizer has no token {token}",
                fix="use the tokenizer of a SmolVLM, SmolVLM2 or Idefics3 checkpoint",
            )
        return index

    def pieces(text: str) -> TokenIds:
        return tuple(tokenizer.encode(text, add_special_tokens=False).ids)

    sides = range(1, MAX_TILES_PER_SIDE + 1)
    return PromptTokens(
        special={token: one(token) for token in template.written_tokens},
        end_of_turn=one(template.end_of_turn),
        image=one(template.image_token),
        image_boundary=one("<fake_token_around_image>"),
        global_view=pieces("<global-img>"),
        row_column={
            (row, column): pieces(f"<row_{row}_col_{column}>") for row in sides for column in sides
        },
        row_end=pieces("\n"),
        last_row_end=pieces("\n\n"),
        pad=one(template.end_of_turn) if pad is None else pad,
        tokens_per_tile=tokens_per_tile,
    )
