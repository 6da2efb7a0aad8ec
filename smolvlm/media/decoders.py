"""The boundary around other people's decoders: whatever they raise is a fault of the medium.

Pillow, FFmpeg and their like document few of the exceptions that damaged or merely unusual data
draws from them: `ValueError`, `KeyError`, `zlib.error`, `SyntaxError` and many more were seen. No
list of them is ever complete, and one that is missing would end a run of a million rows. So calls
into decoders, and nothing else, stand inside `decoder_errors`; whoever opens the block turns a
`DecoderError` into a `SampleError` that names the picture or the clip. Code of ours stays outside:
its bugs keep their own exceptions.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from smolvlm.errors import SmolVLMError
from smolvlm.media.decode_time import check_time

Item = TypeVar("Item")


class DecoderError(Exception):
    """What a decoder raised; the text is its own, without the number and the file of the system."""


@contextmanager
def decoder_errors() -> Iterator[None]:
    """Turn every exception of a decoder into a `DecoderError`.

    Memory that ran out is no fault of the medium, nor are interrupts: they pass. FFmpeg's own kind
    of `MemoryError`, which sizes in a damaged header draw from it, is.
    """
    try:
        yield
    except (DecoderError, SmolVLMError):  # ours: a file that is read looks at the clock
        raise
    except Exception as error:  # a decoder may raise anything; only its calls stand in the block
        if type(error) is MemoryError:
            raise
        raise DecoderError(_text(error)) from error


def each(items: Iterable[Item]) -> Iterator[Item]:
    """Yield what a decoder yields; only its own work is inside the boundary, not the caller's.

    Raises:
        DecoderError: it raised something.
    """
    iterator = iter(items)
    while True:
        with decoder_errors():
            item = next(iterator, _END)
        if item is _END:
            return
        check_time()
        yield item  # pyright: ignore[reportReturnType] - not the mark of the end


_END = object()


def _text(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return text.splitlines()[0]
