"""`smolvlm.media.decoders`: whatever a decoder raises is a fault of the medium; nothing else is."""

import struct
import zlib
from collections.abc import Iterator

import av.error
import pytest

from smolvlm.media.decoders import DecoderError, decoder_errors, each


@pytest.mark.parametrize(
    "error",
    [
        ValueError("31 is not a valid Type"),
        KeyError("chunk"),
        struct.error("unpack requires a buffer of 4 bytes"),
        SyntaxError("broken PNG file"),
        zlib.error("Error -3"),
        RecursionError("maximum depth"),
        StopIteration(),
        UserWarning("a remark that was made an error"),
        av.error.MemoryError(12, "Cannot allocate memory"),
        av.error.InvalidDataError(1, "Invalid data"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_a_decoder_raises_is_one_error(error: Exception) -> None:
    with pytest.raises(DecoderError) as raised, decoder_errors():
        raise error
    assert raised.value.__cause__ is error
    assert str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), SystemExit(1)])
def test_what_is_no_fault_of_the_medium_passes(error: BaseException) -> None:
    with pytest.raises(type(error)), decoder_errors():
        raise error


def test_only_the_decoders_own_steps_are_inside() -> None:
    def frames() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("damaged")

    seen: list[int] = []
    with pytest.raises(DecoderError, match="damaged"):
        seen.extend(each(frames()))
    assert seen == [1, 2]
    with pytest.raises(ZeroDivisionError):
        seen.extend(frame // 0 for frame in each(frames()))
    assert list(each([])) == []
