"""What only shows between rows: duplicates, and held-out rows that are trained on too.

In: what each row says about itself, as digests. Out: findings.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from smolvlm.check.findings import Finding
from smolvlm.records import Conversation, Layout, VideoRef


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedMedium:
    """A picture or clip that could be decoded to its end."""

    key: bytes
    """Digest of the bytes."""
    size: tuple[int, int]
    """(width, height) in pixels, upright."""
    duration_s: float | None
    """Of a clip; None for a picture."""
    layout: Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedRow:
    """What one row says about itself."""

    where: str
    source: str
    number: int
    """Of its source among all that are checked."""
    row: int
    """Its number in the source's file, from 0."""
    is_held_out: bool
    num_tokens: int
    num_tiles: int
    text_key: bytes
    """Digest of all text and of which pictures stand where."""
    words_key: bytes
    """Digest of the user's and the assistant's words alone."""
    media: tuple[CheckedMedium, ...]


def spoken(row: Conversation, media: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a row's words and, where given, its media's keys, so that different rows differ."""
    keys = iter(media)
    for turn in row.every_turn:
        yield turn.role.encode()
        for block in turn.blocks:
            if isinstance(block, str):
                yield b"t" + block.strip().encode()
            else:
                bounds = (block.start_s, block.end_s) if isinstance(block, VideoRef) else ""
                yield b"p" + next(keys, b"") + str(bounds).encode()


def digest_of(parts: Iterable[bytes]) -> bytes:
    """Return 16 bytes that differ where the parts, or their borders, do."""
    digest = blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def duplicates(
    rows: Sequence[CheckedRow],
    differing_keys: Callable[[CheckedRow, CheckedRow], Sequence[str]],
) -> Iterator[Finding]:
    """Yield rows that say the same about the same pictures as an earlier row of the same set.

    Args:
        rows: all that can be trained on.
        differing_keys: gives the keys that are not read and in which two rows differ.
    """
    first: dict[tuple[bool, bytes], CheckedRow] = {}
    for row in rows:
        earlier = first.setdefault((row.is_held_out, row.text_key), row)
        if earlier.where != row.where:
            keys = [f"`{key}`" for key in differing_keys(earlier, row)]
            are = "is" if len(keys) == 1 else "are"
            differ = f" (they differ only in {', '.join(keys)}, which {are} not read)"
            message = (
                f"the same words and media as {earlier.where}{differ if keys else ''}; take one "
                f"out, or use `repeat` to see rows more often"
            )
            yield Finding(
                where=row.where, severity="warning", kind="duplicate_row", message=message
            )


def leaks(rows: Sequence[CheckedRow]) -> Iterator[Finding]:
    """Yield held-out rows whose whole content, or one of whose pictures, is trained on too."""
    training = [
        row for row in reversed(rows) if not row.is_held_out
    ]  # of several the first is named
    trained = {row.text_key: row.where for row in training}
    shown = {medium.key: row.where for row in training for medium in row.media}
    words = {row.words_key: row.where for row in training if not row.media}
    for row in rows:
        if not row.is_held_out:
            continue
        if (
            other := trained.get(row.text_key)
            or (words.get(row.words_key) if not row.media else None)
        ) is not None:
            message = f"held out, and the same row is trained on: {other}; take one of them out"
            yield Finding(where=row.where, severity="error", kind="leaked_row", message=message)
        elif (
            shared := next((medium for medium in row.media if medium.key in shown), None)
        ) is not None:
            name = "picture" if shared.duration_s is None else "clip"
            message = (
                f"held out, and its {name} is trained on in {shown[shared.key]}; split by {name}, "
                f"not by row"
            )
            yield Finding(
                where=row.where, severity="warning", kind=f"leaked_{name}", message=message
            )
