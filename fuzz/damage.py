"""Bytes damaged as files are: single bits, cuts, holes, doubled and foreign pieces.

In: whole bytes and a seeded generator. Out: changed bytes; the same generator gives the same.
"""

from collections.abc import Callable, Sequence
from random import Random

MAX_PIECE = 64
"""Bytes of a hole or a doubled piece."""
EDGE_BYTES = 64
"""A third of all changes lie so near to the file's begin or its end: headers and footers."""
_ODD_BYTES = (0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x0D, 0x20, 0x22, 0x2C, 0x5B, 0x5D, 0x7B, 0x7D)


def _place(data: bytes, random: Random) -> int:
    if random.random() < 1 / 3:
        near = random.randrange(min(EDGE_BYTES, len(data)))
        return near if random.random() < 0.5 else len(data) - 1 - near
    return random.randrange(len(data))


def flip_bit(data: bytes, random: Random) -> bytes:
    """Change one bit."""
    at = _place(data, random)
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def set_byte(data: bytes, random: Random) -> bytes:
    """Change one byte into one that formats give a meaning to, or into any."""
    at = _place(data, random)
    value = random.choice(_ODD_BYTES) if random.random() < 0.7 else random.randrange(256)
    return data[:at] + bytes([value]) + data[at + 1 :]


def set_number(data: bytes, random: Random) -> bytes:
    """Write an extreme number of two to eight bytes, in either order."""
    at = _place(data, random)
    size = random.choice((2, 4, 8))
    value = random.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1))
    order = random.choice(("little", "big"))
    number = (value % (1 << 8 * size)).to_bytes(size, "little" if order == "little" else "big")
    return data[:at] + number + data[at + size :]


def cut(data: bytes, random: Random) -> bytes:
    """Keep the beginning."""
    return data[: _place(data, random)]


def drop_piece(data: bytes, random: Random) -> bytes:
    """Take a piece out."""
    at = _place(data, random)
    return data[:at] + data[at + 1 + random.randrange(MAX_PIECE) :]


def double_piece(data: bytes, random: Random) -> bytes:
    """Write a piece twice."""
    at = _place(data, random)
    return data[: at + 1 + random.randrange(MAX_PIECE)] + data[at:]


def zero_piece(data: bytes, random: Random) -> bytes:
    """Make a hole of zeros, as lost disk blocks are."""
    at = _place(data, random)
    size = min(1 + random.randrange(MAX_PIECE), len(data) - at)
    return data[:at] + bytes(size) + data[at + size :]


def swap_pieces(data: bytes, random: Random) -> bytes:
    """Exchange two pieces of one length."""
    first, second = sorted((_place(data, random), _place(data, random)))
    size = min(1 + random.randrange(MAX_PIECE), second - first, len(data) - second)
    one, other = data[first : first + size], data[second : second + size]
    return data[:first] + other + data[first + size : second] + one + data[second + size :]


CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(flip_bit, flip_bit, set_byte, set_byte, set_number),
    *(cut, drop_piece, double_piece, zero_piece, swap_pieces),
)


def damaged(data: bytes, random: Random, *, others: Sequence[bytes] = ()) -> bytes:
    """Return bytes after one to four changes.

    Args:
        data: the whole file.
        random: decides everything.
        others: files whose ends may be spliced in.
    """
    for _ in range(random.choice((1, 1, 2, 4))):
        if not data:
            break
        if others and random.random() < 0.1:
            other = random.choice(others)
            data = data[: _place(data, random)] + other[random.randrange(len(other)) :]
        else:
            data = random.choice(CHANGES)(data, random)
    return data
