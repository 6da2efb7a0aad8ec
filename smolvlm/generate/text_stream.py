"""An answer's text while it is generated.

In: token ids as `generate` hands them to a streamer, one at a time. Out: pieces of text, each as
soon as no later token can change it; together they are the stripped answer.
"""

from collections.abc import Callable, Sequence

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

OnText = Callable[[str], None]
"""Told a piece of an answer."""
_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
"""What tokenizers write for the first bytes of a character whose others are still to come."""


class TextStream(BaseStreamer):
    """Takes one answer's tokens; ids of the prompt come first where it was given as ids."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        on_text: OnText,
        *,
        max_tokens: int | None = None,
    ) -> None:
        """Take what turns ids into text, and who is told.

        Args:
            decode: of all ids so far; ends at the turn's end by itself.
            on_text: see `OnText`.
            max_tokens: later ones are none of the answer's; None is without bound.
        """
        self._decode = decode
        self._on_text = on_text
        self._max_tokens = max_tokens
        self._ids: list[int] = []
        self._num_said = 0

    @property
    def num_tokens(self) -> int:
        """How many tokens were generated, the end of the turn among them."""
        return len(self._ids)

    def put(self, value: Tensor) -> None:
        """Take the next tokens."""
        self._ids += value.flatten().tolist()
        self._say(self._text(), is_last=False)

    def end(self) -> None:
        """Say what was held back."""
        self._say(self._text(), is_last=True)

    def _text(self) -> str:
        return self._decode(self._ids[: self._max_tokens]).strip()

    def _say(self, text: str, *, is_last: bool) -> None:
        stands = text if is_last else text.rstrip(_UNFINISHED).rstrip()
        if len(stands) > self._num_said:
            self._on_text(stands[self._num_said :])
            self._num_said = len(stands)
