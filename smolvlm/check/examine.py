"""The data doctor: every row of a mixture read, every picture and clip really decoded, and what is wrong said.

In: open sources, for training and held out. Out: an `Examination`: findings with their rows, and numbers for
histograms. No model is needed. Rows are examined in parts over all cores; what only shows between rows (duplicates,
leaks) is found afterwards from digests.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Literal

from smolvlm.datasets.encoding.encode import Encoder
from smolvlm.datasets.encoding.encoded import media_identity
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import Budget, modality_of, over_budget, over_context
from smolvlm.datasets.packing.workers import over_cores
from smolvlm.datasets.rows.conversations import OpenSource
from smolvlm.datasets.rows.placeholders import PLACEHOLDERS, has_marks
from smolvlm.datasets.rows.sources import MediaMarkers
from smolvlm.errors import SampleError
from smolvlm.media.images import content_key, open_rgb, read_bytes
from smolvlm.media.layout import layout_of
from smolvlm.media.video.check import examine_clip
from smolvlm.media.video.reader import clip_key
from smolvlm.records import Conversation, Layout, Media, VideoRef

SMALL_ROWS = 64
"""Up to so many are examined here: starting other processes takes longer."""
PART_ROWS = 512
MEDIA_KEPT = 4096
Severity = Literal["error", "warning"]

_KINDS: tuple[tuple[str, str], ...] = (
    ("does not exist", "missing_media"),
    (r"is empty \(zero bytes\)", "empty_media"),
    ("larger than the limit", "too_large_media"),
    ("cannot be downloaded", "missing_media"),
    ("outside the folder", "outside_root"),
    (
        r"damaged|cut short|not a picture|not a video|index is missing|no video|no frame|cannot be decoded"
        r"|32-bit pixels|not supported|cannot be read|is a directory|a folder without pictures",
        "corrupt_media",
    ),
    ("placeholder", "placeholder_mismatch"),
    (r"tokens, a pack|tiles, a pack", "over_budget"),
    ("the model's context is", "over_context"),
    (r"answer is empty|an empty|nothing in this row|no assistant turn|no `answer`", "empty_row"),
    (r"unknown role|turns in a row|speaks first|last turn|system turn", "role"),
)
"""What a message says -> the kind of finding; anything else is `bad_row`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong."""

    where: str
    """`file:row`."""
    severity: Severity
    kind: str
    message: str
    medium: Media | None = None
    """The picture or clip in question, where there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExaminedMedium:
    """A picture or clip that could be decoded to its end."""

    key: bytes
    """Digest of the bytes."""
    size: tuple[int, int]
    """(width, height) in pixels, upright."""
    duration_s: float | None
    """Of a clip; None for a picture."""
    layout: Layout


@dataclass(frozen=True, kw_only=True, slots=True)
class ExaminedRow:
    """What one row says about itself."""

    where: str
    source: str
    is_held_out: bool
    num_tokens: int
    num_tiles: int
    text_key: bytes
    """Digest of all text and of which pictures stand where."""
    words_key: bytes
    """Digest of the user's and the assistant's words alone."""
    media: tuple[ExaminedMedium, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """All that was found."""

    findings: tuple[Finding, ...]
    num_rows: int
    num_pictures: int
    """Distinct, that could be decoded."""
    num_clips: int
    tokens: tuple[int, ...]
    """Of each good row."""
    sizes: tuple[tuple[int, int], ...]
    """(width, height) in pixels of each distinct picture and clip."""
    durations_s: tuple[float, ...]
    """Of each distinct clip."""

    @property
    def num_errors(self) -> int:
        return sum(finding.severity == "error" for finding in self.findings)

    def kinds(self) -> Counter[str]:
        """Return how many findings there are of each kind."""
        return Counter(finding.kind for finding in self.findings)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExaminedPart:
    """What came of some rows."""

    rows: list[ExaminedRow] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def examine(
    sources: Sequence[OpenSource],
    held_out: Sequence[OpenSource],
    prompt: PromptSettings,
    *,
    budget: Budget,
    num_workers: int | None = None,
    report: Callable[[int, int], None] | None = None,
) -> Examination:
    """Examine a mixture.

    Args:
        sources: to train on.
        held_out: to evaluate on; what they share with `sources` is a leak.
        prompt: of the checkpoint, for sizes.
        budget: of a pack.
        num_workers: processes; None is one a core.
        report: told the rows done so far, and all.
    """
    every = (*sources, *held_out)
    parts = [
        (number, source.rows[start : start + PART_ROWS].tolist())
        for number, source in enumerate(every)
        for start in range(0, len(source.rows), PART_ROWS)
    ]
    total = sum(len(rows) for _, rows in parts)
    done = 0
    found: dict[int, ExaminedPart] = {}
    arguments = (every, len(sources), prompt, budget)
    if num_workers is None and total <= SMALL_ROWS:
        num_workers = 1
    for number, part in over_cores(RowDoctor, arguments, parts, num_workers=num_workers):
        found[number] = part
        done += len(parts[number][1])
        if report is not None:
            report(done, total)
    ordered = [found[number] for number in range(len(parts))]
    rows = [row for part in ordered for row in part.rows]
    findings = [finding for part in ordered for finding in part.findings]
    media = {medium.key: medium for row in rows for medium in row.media}
    durations = tuple(own.duration_s for own in media.values() if own.duration_s is not None)
    return Examination(
        findings=(*findings, *_duplicates(rows), *_leaks(rows)),
        num_rows=total,
        num_pictures=len(media) - len(durations),
        num_clips=len(durations),
        tokens=tuple(row.num_tokens for row in rows),
        sizes=tuple(medium.size for medium in media.values()),
        durations_s=durations,
    )


class RowDoctor:
    """Examines rows one by one; media that neighbours share are decoded once."""

    def __init__(
        self, sources: Sequence[OpenSource], num_training: int, prompt: PromptSettings, budget: Budget
    ) -> None:
        self._sources = sources
        self._num_training = num_training
        self._encoder: Encoder = prompt.encoder()
        self._settings = prompt.media
        self._budget = budget
        self._context_tokens = prompt.context_tokens
        self._media: dict[bytes, ExaminedMedium | SampleError] = {}

    def __call__(self, part: tuple[int, list[int]]) -> ExaminedPart:
        number, rows = part
        source = self._sources[number]
        conversations, found = source.all_rows(), ExaminedPart()
        for row in rows:
            try:
                conversation = conversations[row]
            except SampleError as error:
                found.findings.append(finding_of(error, where=source.table.where(row)))
                continue
            found.findings.extend(mark_findings(conversation, source.spec.media_markers))
            self._examine(conversation, found, is_held_out=number >= self._num_training)
        return found

    def _examine(self, row: Conversation, found: ExaminedPart, *, is_held_out: bool) -> None:
        media: list[ExaminedMedium] = []
        num_findings = len(found.findings)
        for medium in row.media:
            decoded = self._medium(medium, where=row.where)
            if isinstance(decoded, SampleError):
                found.findings.append(finding_of(decoded, where=row.where, medium=medium))
            else:
                media.append(decoded)
        if len(found.findings) > num_findings:
            return
        lengths = self._encoder.lengths(row, layouts=[own.layout for own in media])
        sizes = {
            "num_tokens": lengths.num_tokens,
            "num_positions": lengths.num_positions,
            "num_tiles": lengths.num_tiles,
            "modality": modality_of(row.media),
        }
        error = over_context(sizes, self._context_tokens, where=row.where)
        error = error or over_budget(sizes, self._budget, where=row.where)
        if error is not None:
            found.findings.append(finding_of(error, where=row.where))
        found.rows.append(
            ExaminedRow(
                where=row.where,
                source=row.source,
                is_held_out=is_held_out,
                num_tokens=lengths.num_tokens,
                num_tiles=lengths.num_tiles,
                text_key=_digest(_spoken(row, [own.key for own in media])),
                words_key=_digest(_spoken(row, [])),
                media=tuple(media),
            )
        )

    def _medium(self, medium: Media, *, where: str) -> ExaminedMedium | SampleError:
        identity = media_identity(medium)
        if identity not in self._media:
            if len(self._media) >= MEDIA_KEPT:
                self._media.clear()
            try:
                self._media[identity] = self._decoded(medium, where=where)
            except SampleError as error:
                self._media[identity] = error
        return self._media[identity]

    def _decoded(self, medium: Media, *, where: str) -> ExaminedMedium:
        if isinstance(medium, VideoRef):
            facts = examine_clip(medium, where=where)
            key, size, duration_s = clip_key(medium, where=where), (facts.width, facts.height), facts.duration_s
        else:
            data = read_bytes(medium, where=where)
            size = open_rgb(replace(medium, data=data), where=where).size
            key, duration_s = content_key(data), None
        layout = layout_of(medium, self._settings, where=where)
        return ExaminedMedium(key=key, size=size, duration_s=duration_s, layout=layout)


def mark_findings(row: Conversation, markers: MediaMarkers) -> list[Finding]:
    """Return what is odd about the marks in the text of a row: they stay text, and may not be meant as text."""
    asked = [block for turn in row.turns if turn.role == "user" for block in turn.blocks if isinstance(block, str)]

    def warning(kind: str, message: str) -> list[Finding]:
        return [Finding(where=row.where, severity="warning", kind=kind, message=message)]

    if not row.media and any(has_marks(text, markers) for text in asked):
        own = " or ".join(f"`{mark}`" for mark in PLACEHOLDERS[markers].values())
        what = f"{own} in the text and no media in the row: it is learned as text; is a key missing?"
        return warning("mark_without_media", what)
    if markers == "plain" and any(has_marks(text, "distinct") for text in asked):
        own = " or ".join(f"`{mark}`" for mark in PLACEHOLDERS["distinct"].values())
        what = f"{own} is learned as text; set `media_markers: distinct` on this source if it marks a place"
        return warning("mark_learned_as_text", what)
    return []


def finding_of(error: SampleError, *, where: str, medium: Media | None = None) -> Finding:
    """Return an error about a row as a finding."""
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, error.what)), "bad_row")
    message = f"{error.what}; {error.fix}" if error.fix else error.what
    return Finding(where=where, severity="error", kind=kind, message=message, medium=medium)


def _spoken(row: Conversation, media: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a row's words, and the keys of its media where they are given, so that different rows differ."""
    keys = iter(media)
    for turn in row.every_turn:
        yield turn.role.encode()
        for block in turn.blocks:
            if isinstance(block, str):
                yield b"t" + block.strip().encode()
            else:
                bounds = (block.start_s, block.end_s) if isinstance(block, VideoRef) else ""
                yield b"p" + next(keys, b"") + str(bounds).encode()


def _digest(parts: Iterable[bytes]) -> bytes:
    made = blake2b(digest_size=16)
    for part in parts:
        made.update(len(part).to_bytes(8, "little") + part)
    return made.digest()


def _duplicates(rows: Sequence[ExaminedRow]) -> Iterator[Finding]:
    """Yield rows that say the same about the same pictures as an earlier row of the same set."""
    first: dict[tuple[bool, bytes], str] = {}
    for row in rows:
        earlier = first.setdefault((row.is_held_out, row.text_key), row.where)
        if earlier != row.where:
            message = f"the same words and media as {earlier}; take one out, or use `repeat` to see rows more often"
            yield Finding(where=row.where, severity="warning", kind="duplicate_row", message=message)


def _leaks(rows: Sequence[ExaminedRow]) -> Iterator[Finding]:
    """Yield held-out rows whose whole content, or one of whose pictures, is trained on too."""
    training = [row for row in reversed(rows) if not row.is_held_out]  # of several the first is named
    trained = {row.text_key: row.where for row in training}
    shown = {medium.key: row.where for row in training for medium in row.media}
    words = {row.words_key: row.where for row in training if not row.media}
    for row in rows:
        if not row.is_held_out:
            continue
        if (other := trained.get(row.text_key) or (words.get(row.words_key) if not row.media else None)) is not None:
            message = f"held out, and the same row is trained on: {other}; take one of them out"
            yield Finding(where=row.where, severity="error", kind="leaked_row", message=message)
        elif (own := next((medium for medium in row.media if medium.key in shown), None)) is not None:
            name = "picture" if own.duration_s is None else "clip"
            message = f"held out, and its {name} is trained on in {shown[own.key]}; split by {name}, not by row"
            yield Finding(where=row.where, severity="warning", kind=f"leaked_{name}", message=message)
