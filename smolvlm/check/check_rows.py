"""The check before training: every row read, every picture and clip decoded, what is wrong said.

In: open sources, for training and held out. Out: a `CheckResult`: findings with their rows, and
numbers for histograms. No model is needed. Rows are checked in parts over all cores; what only
shows between rows (duplicates, leaks) is found afterwards from digests.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from smolvlm.check.between_rows import (
    CheckedMedium,
    CheckedRow,
    digest_of,
    duplicates,
    leaks,
    spoken,
)
from smolvlm.check.contradictions import Answered, answered, contradictions
from smolvlm.check.differing_keys import differing_keys
from smolvlm.check.findings import (
    SAID_ONCE,
    Finding,
    Severity,
    bounds_findings,
    doubt_findings,
    finding_of,
    left_out_findings,
    mark_findings,
    special_token_findings,
    unread_finding,
)
from smolvlm.datasets.encoding.encode import Encoder
from smolvlm.datasets.encoding.encoded import media_identity
from smolvlm.datasets.encoding.prompts import PromptSettings
from smolvlm.datasets.packing.lengths import modality_of
from smolvlm.datasets.packing.measured import RowRequirements
from smolvlm.datasets.packing.workers import over_cores
from smolvlm.datasets.rows.conversations import OpenSource
from smolvlm.errors import SampleError
from smolvlm.media.decode_time import decoding
from smolvlm.media.images import content_key, open_rgb, read_bytes
from smolvlm.media.layout import layout_of
from smolvlm.media.video.check import check_clip
from smolvlm.media.video.reader import clip_key
from smolvlm.records import Conversation, Media, VideoRef

SMALL_ROWS = 64
"""Up to so many are checked here: starting other processes takes longer."""
PART_ROWS = 512
MEDIA_KEPT = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFacts:
    """What the reader of a source passed over."""

    name: str
    num_rows: int
    num_filtered: int
    empty_files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
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
    sources: tuple[SourceFacts, ...] = ()
    """What the reader passed over, source by source, the held-out ones last."""

    @property
    def num_errors(self) -> int:
        return self._count("error")

    @property
    def num_warnings(self) -> int:
        return self._count("warning")

    def _count(self, severity: Severity) -> int:
        return sum(finding.severity == severity for finding in self.findings)

    def kinds(self) -> Counter[str]:
        """Return how many errors and warnings there are of each kind."""
        return Counter(finding.kind for finding in self.findings if finding.severity != "info")

    @property
    def remarks(self) -> tuple[Finding, ...]:
        """What is said and is nothing wrong: keys that are not read."""
        return tuple(finding for finding in self.findings if finding.severity == "info")


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckedPart:
    """What came of some rows."""

    rows: list[CheckedRow] = field(default_factory=list)
    answers: list[Answered] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unread_keys: set[str] = field(default_factory=set)
    left_out_keys: set[str] = field(default_factory=set)


def check_rows(
    sources: Sequence[OpenSource],
    held_out: Sequence[OpenSource],
    prompt: PromptSettings,
    *,
    requirements: RowRequirements,
    num_workers: int | None = None,
    report: Callable[[int, int], None] | None = None,
) -> CheckResult:
    """Check a mixture.

    Args:
        sources: to train on.
        held_out: to evaluate on; what they share with `sources` is a leak.
        prompt: of the checkpoint, for sizes.
        requirements: what a row must be, to be trained on.
        num_workers: processes; None is one a core.
        report: called with the rows done so far, and all.
    """
    every = (*sources, *held_out)
    parts = [
        (number, source.rows[start : start + PART_ROWS].tolist())
        for number, source in enumerate(every)
        for start in range(0, len(source.rows), PART_ROWS)
    ]
    total = sum(len(rows) for _, rows in parts)
    done = 0
    checked: dict[int, CheckedPart] = {}
    arguments = (every, len(sources), prompt, requirements)
    if num_workers is None and total <= SMALL_ROWS:
        num_workers = 1
    for number, part in over_cores(RowChecker, arguments, parts, num_workers=num_workers):
        checked[number] = part
        done += len(parts[number][1])
        if report is not None:
            report(done, total)
    ordered = [checked[number] for number in range(len(parts))]
    rows = [row for part in ordered for row in part.rows]
    findings: list[Finding] = []
    said: set[tuple[int, str]] = set()
    for (number, _), part in zip(parts, ordered, strict=True):
        for finding in part.findings:
            if finding.kind not in SAID_ONCE or (number, finding.message) not in said:
                findings.append(finding)
            said.add((number, finding.message))
    for number, source in enumerate(every):
        own = [part for (of, _), part in zip(parts, ordered, strict=True) if of == number]
        unread = set[str]().union(*(part.unread_keys for part in own))
        left_out = set[str]().union(*(part.left_out_keys for part in own))
        spec = source.spec
        findings += [unread_finding(unread, where=spec.label)] if unread else []
        findings += left_out_findings(left_out, spec.not_read, where=spec.label)
    media = {medium.key: medium for row in rows for medium in row.media}
    durations = tuple(
        medium.duration_s for medium in media.values() if medium.duration_s is not None
    )
    return CheckResult(
        findings=(
            *findings,
            *duplicates(rows, partial(differing_keys, every)),
            *leaks(rows),
            *contradictions([answer for part in ordered for answer in part.answers]),
        ),
        num_rows=total,
        num_pictures=len(media) - len(durations),
        num_clips=len(durations),
        tokens=tuple(row.num_tokens for row in rows),
        sizes=tuple(medium.size for medium in media.values()),
        durations_s=durations,
        sources=tuple(_facts_of(source) for source in every),
    )


def _facts_of(source: OpenSource) -> SourceFacts:
    return SourceFacts(
        name=source.spec.name,
        num_rows=len(source.table),
        num_filtered=source.num_filtered,
        empty_files=source.table.empty_files,
    )


class RowChecker:
    """Checks rows one by one; media that neighbours share are decoded once."""

    def __init__(
        self,
        sources: Sequence[OpenSource],
        num_training: int,
        prompt: PromptSettings,
        requirements: RowRequirements,
    ) -> None:
        self._sources = sources
        self._num_training = num_training
        self._encoder: Encoder = prompt.encoder()
        self._settings = prompt.media
        self._requirements = requirements
        self._text = prompt.text
        self._media: dict[bytes, CheckedMedium | SampleError] = {}

    def __call__(self, part: tuple[int, list[int]]) -> CheckedPart:
        number, rows = part
        source = self._sources[number]
        conversations, checked = source.all_rows(), CheckedPart()
        for row in rows:
            try:
                conversation = conversations[row]
            except SampleError as error:
                checked.findings.append(finding_of(error, where=source.table.where(row)))
                continue
            checked.unread_keys.update(conversation.unread_keys)
            checked.left_out_keys.update(conversation.left_out_keys)
            checked.findings.extend(doubt_findings(conversation))
            checked.findings.extend(mark_findings(conversation, source.spec.media_markers))
            checked.findings.extend(special_token_findings(conversation, self._text))
            try:
                with decoding(self._settings.max_decode_s, where=conversation.where):
                    self._check(conversation, checked, number=number, row_number=row)
            except SampleError as error:
                if not error.ends_run:
                    raise
                checked.findings.append(finding_of(error, where=conversation.where))
        return checked

    def _check(
        self, row: Conversation, checked: CheckedPart, *, number: int, row_number: int
    ) -> None:
        is_held_out = number >= self._num_training
        media: list[CheckedMedium] = []
        is_whole = True
        for medium in row.media:
            decoded = self._medium(medium)
            if isinstance(decoded, SampleError):
                checked.findings.append(finding_of(decoded, where=row.where, medium=medium))
                is_whole = False
            else:
                media.append(decoded)
                checked.findings.extend(bounds_findings(medium, decoded.duration_s, row.where))
        if not is_whole:
            return
        lengths = self._encoder.lengths(row, layouts=[medium.layout for medium in media])
        sizes = {
            "num_tokens": lengths.num_tokens,
            "num_positions": lengths.num_positions,
            "num_tiles": lengths.num_tiles,
            "modality": modality_of(row.media),
            "is_preference": bool(row.rejected),
        }
        required = replace(self._requirements, kind=None) if is_held_out else self._requirements
        error = required.problem(sizes)
        if error is not None:
            checked.findings.append(finding_of(error, where=row.where))
        media_keys = [medium.key for medium in media]
        spec = self._sources[number].spec
        checked.answers.extend(answered(row, media_keys, spec, is_held_out=is_held_out))
        checked.rows.append(
            CheckedRow(
                where=row.where,
                source=row.source,
                number=number,
                row=row_number,
                is_held_out=is_held_out,
                num_tokens=lengths.num_tokens,
                num_tiles=lengths.num_tiles,
                text_key=digest_of(spoken(row, media_keys)),
                words_key=digest_of(spoken(row, [])),
                media=tuple(media),
            )
        )

    def _medium(self, medium: Media) -> CheckedMedium | SampleError:
        identity = media_identity(medium)
        if identity not in self._media:
            if len(self._media) >= MEDIA_KEPT:
                self._media.clear()
            try:
                self._media[identity] = self._decoded(medium)
            except SampleError as error:
                if error.ends_run:  # the row's, and not this medium's alone
                    raise
                self._media[identity] = error
        return self._media[identity]

    def _decoded(self, medium: Media) -> CheckedMedium:
        if isinstance(medium, VideoRef):
            max_pixels = self._settings.max_image_pixels
            facts = check_clip(medium, max_image_pixels=max_pixels)
            key, size, duration_s = clip_key(medium), (facts.width, facts.height), facts.duration_s
        else:
            data = read_bytes(medium)
            max_pixels = self._settings.max_image_pixels
            size = open_rgb(replace(medium, data=data), max_pixels=max_pixels).size
            key, duration_s = content_key(data), None
        layout = layout_of(medium, self._settings)
        return CheckedMedium(key=key, size=size, duration_s=duration_s, layout=layout)
