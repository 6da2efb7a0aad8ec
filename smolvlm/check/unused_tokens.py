"""New tokens that no row holds: their rows would train on nothing.

In: the texts of new tokens, and open sources. Out: a warning for each that stands in no row. Rows
are read in order until every text was seen, so a mixture that uses them all costs a few rows.
"""

from collections.abc import Iterator, Sequence

from smolvlm.check.findings import Finding
from smolvlm.datasets.rows.conversations import OpenSource
from smolvlm.errors import SampleError


def unused_tokens(tokens: Sequence[str], sources: Sequence[OpenSource]) -> list[Finding]:
    """Return a warning for each text that is in no row of the sources."""
    unseen = set(tokens)
    for text in _texts(sources):
        if not unseen:
            break
        unseen = {token for token in unseen if token not in text}
    message = "stands in no row, so its embedding learns nothing; look for a misspelling"
    return [
        Finding(
            where="model.new_tokens",
            severity="warning",
            kind="unused_token",
            message=f"{token!r} {message}",
        )
        for token in tokens
        if token in unseen
    ]


def _texts(sources: Sequence[OpenSource]) -> Iterator[str]:
    """Yield all texts of rows that can be read."""
    for source in sources:
        conversations = source.all_rows()
        for row in source.rows:
            try:
                conversation = conversations[int(row)]
            except SampleError:
                continue  # named by the result of rows
            for turn in conversation.every_turn:
                yield from (block for block in turn.blocks if isinstance(block, str))
