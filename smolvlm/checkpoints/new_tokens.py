"""New tokens in a processor and in a model: a tokenizer that knows them, and rows that they begin
from.

In: `model.new_tokens` of a run file. Out: a separate processor whose tokenizer has them as single
ids, and a model whose embeddings and output head have a row for each. A row begins at the mean of
the rows of its words' pieces, in each of the two matrices. Two tokens made of the same pieces (in
any order) would begin alike: the later one is moved by a little noise that its text alone decides,
so what a token begins as depends on nothing but the checkpoint and its text.
"""

import copy
from collections.abc import Sequence
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Any

import torch
from jaxtyping import Float
from tokenizers import Tokenizer
from torch import Tensor

from smolvlm.checkpoints.vocabulary import PlacedToken, Placement, Wanted, place_tokens
from smolvlm.config.new_tokens import NewToken
from smolvlm.config.suggestions import did_you_mean
from smolvlm.errors import ConfigError
from smolvlm.protocols import Processor

NOISE = 0.05
"""Of a matrix's own spread: what tells a token from an earlier one that is made of the same
pieces."""


def wanted_tokens(tokens: Sequence[NewToken]) -> list[Wanted]:
    """Return the run file's new tokens as texts to be placed."""
    return [Wanted(token=new.token, words=new.words) for new in tokens]


def placement_of(processor: Processor, tokens: Sequence[NewToken]) -> Placement:
    """Return where new tokens stand in a processor's vocabulary.

    Raises:
        ConfigError: a text that cannot become a token.
    """
    return place_tokens(processor.tokenizer.backend_tokenizer.to_str(), wanted_tokens(tokens))


def with_tokenizer(processor: Processor, placement: Placement) -> Processor:
    """Return a processor with the tokenizer of a placement; the one given stays what it was."""
    if not placement.placed:
        return processor
    extended = copy.copy(processor)
    extended.tokenizer = copy.copy(processor.tokenizer)
    extended.tokenizer._tokenizer = Tokenizer.from_str(placement.tokenizer_json)
    return extended


def token_ids(
    processor: Processor, tokens: Sequence[NewToken], patterns: Sequence[str]
) -> list[int]:
    """Return the ids whose rows train by themselves: new tokens, and added ones that patterns name.

    Args:
        processor: which has the new tokens.
        tokens: the new ones.
        patterns: a token's text, or `*` standing for anything in it.

    Raises:
        ConfigError: a pattern names no added token.
    """
    decoder = processor.tokenizer.backend_tokenizer.get_added_tokens_decoder()
    added = {token.content: number for number, token in decoder.items()}
    ids = {added[new.token] for new in tokens}
    for pattern in patterns:
        matches = (
            [added[pattern]]
            if pattern in added
            else [added[text] for text in added if fnmatchcase(text, pattern)]
        )
        if not matches:
            fix = (
                did_you_mean(pattern, added)
                or "name special or added tokens of the checkpoint: <row_*>, <global-img>"
            )
            raise ConfigError(
                f"no added token of the checkpoint is `{pattern}`",
                where="train.trainable_tokens",
                fix=fix,
            )
        ids |= set(matches)
    return sorted(ids)


def add_rows(model: Any, placement: Placement) -> None:
    """Give a stock model a first row for each placed token, in both matrices, in place.

    The matrices grow where they must.
    """
    if not placement.placed:
        return
    if placement.num_tokens > num_rows(model):
        model.resize_token_embeddings(placement.num_tokens, mean_resizing=False)
    for matrix in matrices(model):
        matrix.data[[token.token_id for token in placement.placed]] = first_rows(
            matrix.data, placement.placed
        )


def num_rows(model: Any) -> int:
    """Return how many ids a model has rows for."""
    return int(model.get_input_embeddings().weight.shape[0])


def matrices(model: Any) -> list[Tensor]:
    """Return the embeddings and the output head; one matrix where the two are tied."""
    both = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    return both[:1] if both[0] is both[1] else both


def first_rows(
    matrix: Float[Tensor, "vocabulary hidden"], placed: Sequence[PlacedToken]
) -> Float[Tensor, "placed hidden"]:
    """Return the rows that tokens begin from.

    Args:
        matrix: embeddings or output head, with the rows of every piece in it.
        placed: the tokens.
    """
    rows: list[Tensor] = []
    seen: set[tuple[int, ...]] = set()
    spread = 0.0
    for token in placed:
        pieces = tuple(sorted(token.pieces))
        row = matrix[list(pieces)].float().mean(dim=0)
        if pieces in seen:
            spread = spread or float(matrix.float().std())
            row = row + NOISE * spread * _noise(token.token, like=row)
        seen.add(pieces)
        rows.append(row)
    return torch.stack(rows).to(matrix.dtype)


def _noise(token: str, *, like: Float[Tensor, " hidden"]) -> Float[Tensor, " hidden"]:
    """Return normal noise that a text decides."""
    seed = int.from_bytes(blake2b(token.encode(), digest_size=7).digest(), "big")
    return torch.randn(len(like), generator=torch.Generator().manual_seed(seed)).to(like)
