"""A tokenizer with SmolVLM's ids and none of its vocabulary.

The real one comes from a package index. In: nothing. Out: a `Vocabulary` of 49,280 tokens: the
special tokens at the released ids, and between them the 256 bytes and pairs of bytes with a merge
each. Texts therefore become ids from all over the embedding, two bytes a token at best, and every
size and special id is that of a released checkpoint.
"""

from functools import cache
from itertools import islice, product

from tokenizers.pre_tokenizers import ByteLevel

from smolvlm.build.tokenizer import (
    NUM_TEXT_SPECIAL_TOKENS,
    TEXT_VOCABULARY_SIZE,
    render_tokenizer,
)
from smolvlm.build.vocabulary import Vocabulary, smolvlm_vocabulary

_NAMED = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""The first ids of the text vocabulary, as released; the other control tokens stand for themselves.
"""
_SPACE = "Ġ"


@cache
def synthetic_vocabulary() -> Vocabulary:
    """Return the tokenizer as the checkpoint writer takes it."""
    special = [
        *_NAMED,
        *(f"<control_{number}>" for number in range(len(_NAMED), NUM_TEXT_SPECIAL_TOKENS)),
    ]
    letters = sorted(
        ByteLevel.alphabet(), key=lambda letter: (letter != _SPACE, letter)
    )  # " a" before what is rare
    num_pairs = TEXT_VOCABULARY_SIZE - len(special) - len(letters)
    pairs = list(islice(product(letters, letters), num_pairs))
    tokens = [*special, *letters, *(left + right for left, right in pairs)]
    return smolvlm_vocabulary(
        render_tokenizer(tokens, [f"{left} {right}" for left, right in pairs])
    )
