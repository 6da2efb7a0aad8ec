"""One question about one picture that different rows answer differently.

In: of each row, digests of its questions and answers. Out: findings. A question is everything that
stands before an answer, media included, so that a later turn's is that of its conversation.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from smolvlm.check.findings import Finding
from smolvlm.datasets.rows.sources import SourceSpec
from smolvlm.records import Conversation, Turn, VideoRef

_DIGEST_BYTES = 16
_QUESTIONS = frozenset({"question", "instruction"})
"""What a source's `constants` give where its rows are captions."""
_MANY_REFERENCES = frozenset({"bleu", "cider_d"})
"""Metrics of texts that may be worded in many ways."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """One answer that a row teaches, and what it answers; words are compared without capitals,
    spaces and a full stop at the end."""

    question_key: bytes
    """Digest of the words and media before the answer."""
    answer_key: bytes
    """Digest of the answer's words."""
    where: str
    """The row, `file:row`."""
    is_held_out: bool


def answered(
    row: Conversation, media_keys: Sequence[bytes], spec: SourceSpec, *, is_held_out: bool
) -> tuple[Answered, ...]:
    """Return the learned answers of a row to questions about media.

    Empty of rows that may be answered in several ways: preferences, rows with several `answers`,
    and sources with one question for all rows (captions) or a metric of many references.

    Args:
        row: that can be trained on.
        media_keys: digests of its media, in prompt order.
        spec: its source.
        is_held_out: the row is for evaluation.
    """
    if row.rejected or len({_plain(text) for text in row.references}) > 1:
        return ()
    if not _QUESTIONS.isdisjoint(spec.constants) or not _MANY_REFERENCES.isdisjoint(spec.metrics):
        return ()
    keys, before = iter(media_keys), blake2b(digest_size=_DIGEST_BYTES)
    found: list[Answered] = []
    has_media = False
    for turn in row.turns:
        said = _said(turn, keys)
        if turn.role == "assistant" and turn.weight and has_media:
            found.append(
                Answered(
                    question_key=before.digest(),
                    answer_key=blake2b(said, digest_size=_DIGEST_BYTES).digest(),
                    where=row.where,
                    is_held_out=is_held_out,
                )
            )
        has_media = has_media or any(not isinstance(block, str) for block in turn.blocks)
        before.update(turn.role.encode() + len(said).to_bytes(8, "little") + said)
    return tuple(found)


def contradictions(answers: Sequence[Answered]) -> Iterator[Finding]:
    """Yield answers that differ from an earlier row's to the same question, of the same set."""
    first: dict[tuple[bool, bytes], Answered] = {}
    for answer in answers:
        earlier = first.setdefault((answer.is_held_out, answer.question_key), answer)
        if earlier.answer_key != answer.answer_key and earlier.where != answer.where:
            message = (
                f"answers the question of {earlier.where} about the same media differently; make "
                f"the two agree, or write one row with `answers` if several are right"
            )
            yield Finding(
                where=answer.where,
                severity="warning",
                kind="contradictory_answers",
                message=message,
            )


def _said(turn: Turn, media_keys: Iterator[bytes]) -> bytes:
    parts: list[bytes] = []
    for block in turn.blocks:
        if isinstance(block, str):
            parts.append(b"t" + _plain(block).encode())
        else:
            bounds = (block.start_s, block.end_s) if isinstance(block, VideoRef) else ""
            parts.append(b"p" + next(media_keys, b"") + str(bounds).encode())
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".")
