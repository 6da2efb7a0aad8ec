"""The data doctor: every row of a mixture read, every picture really decoded, and what is wrong with them said.

In: open sources, for training and held out. Out: an `Examination`: findings with their rows, and numbers for
histograms. No model is needed. Rows are examined in parts over all cores; what only shows between rows (duplicates,
leaks) is found afterwards from digests.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal

from smolvlm.datasets.lengths import Budget, over_budget
from smolvlm.datasets.rows import OpenSource
from smolvlm.datasets.workers import over_cores
from smolvlm.encoding.encode import Encoder, image_identity
from smolvlm.encoding.prompts import PromptSettings
from smolvlm.errors import SampleError
from smolvlm.media.geometry import grid_for
from smolvlm.media.images import content_key, open_rgb, read_bytes
from smolvlm.records import Conversation, ImageRef

PART_ROWS = 512
PICTURES_KEPT = 4096
Severity = Literal["error", "warning"]

_KINDS: tuple[tuple[str, str], ...] = (
    ("does not exist", "missing_media"),
    (r"is empty \(zero bytes\)", "empty_media"),
    ("larger than the limit", "too_large_media"),
    ("outside the folder", "outside_root"),
    (r"damaged|cut short|not a picture|32-bit pixels|not supported|cannot be read|is a directory", "corrupt_media"),
    ("placeholder", "placeholder_mismatch"),
    (r"tokens, a pack|tiles, a pack", "over_budget"),
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
    picture: ImageRef | None = None
    """The picture in question, where there is one."""


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
    pictures: tuple[tuple[bytes, tuple[int, int]], ...]
    """(digest of the bytes, (width, height) in pixels) of each picture that could be decoded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """All that was found."""

    findings: tuple[Finding, ...]
    num_rows: int
    num_pictures: int
    """Distinct, that could be decoded."""
    tokens: tuple[int, ...]
    """Of each good row."""
    sizes: tuple[tuple[int, int], ...]
    """(width, height) in pixels of each distinct picture."""

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
    for number, part in over_cores(RowDoctor, arguments, parts, num_workers=num_workers):
        found[number] = part
        done += len(parts[number][1])
        if report is not None:
            report(done, total)
    ordered = [found[number] for number in range(len(parts))]
    rows = [row for part in ordered for row in part.rows]
    findings = [finding for part in ordered for finding in part.findings]
    sizes = {key: size for row in rows for key, size in row.pictures}
    return Examination(
        findings=(*findings, *_duplicates(rows), *_leaks(rows)),
        num_rows=total,
        num_pictures=len(sizes),
        tokens=tuple(row.num_tokens for row in rows),
        sizes=tuple(sizes.values()),
    )


class RowDoctor:
    """Examines rows one by one; pictures that neighbours share are decoded once."""

    def __init__(
        self, sources: Sequence[OpenSource], num_training: int, prompt: PromptSettings, budget: Budget
    ) -> None:
        self._sources = sources
        self._num_training = num_training
        self._encoder: Encoder = prompt.encoder()
        self._tiles = prompt.tiles
        self._budget = budget
        self._pictures: dict[bytes, tuple[bytes, tuple[int, int]] | SampleError] = {}

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
            self._examine(conversation, found, is_held_out=number >= self._num_training)
        return found

    def _examine(self, row: Conversation, found: ExaminedPart, *, is_held_out: bool) -> None:
        pictures: list[tuple[bytes, tuple[int, int]]] = []
        num_findings = len(found.findings)
        for image in row.images:
            decoded = self._picture(image, where=row.where)
            if isinstance(decoded, SampleError):
                found.findings.append(finding_of(decoded, where=row.where, picture=image))
            else:
                pictures.append(decoded)
        if len(found.findings) > num_findings:
            return
        lengths = self._encoder.lengths(row, grids=[grid_for(*size, self._tiles) for _, size in pictures])
        sizes = {"num_tokens": lengths.num_tokens, "num_tiles": lengths.num_tiles}
        if (error := over_budget(sizes, self._budget, where=row.where)) is not None:
            found.findings.append(finding_of(error, where=row.where))
        found.rows.append(
            ExaminedRow(
                where=row.where,
                source=row.source,
                is_held_out=is_held_out,
                num_tokens=lengths.num_tokens,
                num_tiles=lengths.num_tiles,
                text_key=_digest(_spoken(row, [key for key, _ in pictures])),
                words_key=_digest(_spoken(row, [])),
                pictures=tuple(pictures),
            )
        )

    def _picture(self, image: ImageRef, *, where: str) -> tuple[bytes, tuple[int, int]] | SampleError:
        identity = image_identity(image)
        if identity not in self._pictures:
            if len(self._pictures) >= PICTURES_KEPT:
                self._pictures.clear()
            try:
                data = read_bytes(image, where=where)
                size = open_rgb(ImageRef(path=image.path, data=data), where=where).size
                self._pictures[identity] = content_key(data), size
            except SampleError as error:
                self._pictures[identity] = error
        return self._pictures[identity]


def finding_of(error: SampleError, *, where: str, picture: ImageRef | None = None) -> Finding:
    """Return an error about a row as a finding."""
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, error.what)), "bad_row")
    message = f"{error.what}; {error.fix}" if error.fix else error.what
    return Finding(where=where, severity="error", kind=kind, message=message, picture=picture)


def _spoken(row: Conversation, pictures: Iterable[bytes]) -> Iterator[bytes]:
    """Yield a row's words, and its pictures where they are given, so that different rows differ."""
    keys = iter(pictures)
    for turn in row.turns:
        yield turn.role.encode()
        for block in turn.blocks:
            yield b"t" + block.strip().encode() if isinstance(block, str) else b"p" + next(keys, b"")


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
            message = f"the same words and pictures as {earlier}; take one out, or use `repeat` to see rows more often"
            yield Finding(where=row.where, severity="warning", kind="duplicate_row", message=message)


def _leaks(rows: Sequence[ExaminedRow]) -> Iterator[Finding]:
    """Yield held-out rows whose whole content, or one of whose pictures, is trained on too."""
    training = [row for row in reversed(rows) if not row.is_held_out]  # of several the first is named
    trained = {row.text_key: row.where for row in training}
    shown = {key: row.where for row in training for key, _ in row.pictures}
    words = {row.words_key: row.where for row in training if not row.pictures}
    for row in rows:
        if not row.is_held_out:
            continue
        if (other := trained.get(row.text_key) or (words.get(row.words_key) if not row.pictures else None)) is not None:
            message = f"held out, and the same row is trained on: {other}; take one of them out"
            yield Finding(where=row.where, severity="error", kind="leaked_row", message=message)
        elif (other := next((shown[key] for key, _ in row.pictures if key in shown), None)) is not None:
            message = f"held out, and its picture is trained on in {other}; split by picture, not by row"
            yield Finding(where=row.where, severity="warning", kind="leaked_picture", message=message)
