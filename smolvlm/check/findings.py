"""What is said about a row: an error that stopped it, or a remark about marks that stay text."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal

from smolvlm.config.problems import shown_text
from smolvlm.datasets.encoding.tokens import TextEncoder
from smolvlm.datasets.rows.causes import by_cause
from smolvlm.datasets.rows.marks import (
    PLACEHOLDERS,
    has_marks,
    mark_numbers,
    other_marks,
    page_pictures,
)
from smolvlm.datasets.rows.sources import MediaMarkers
from smolvlm.errors import SampleError
from smolvlm.records import Conversation, Media, VideoRef

MARKS = frozenset({"<image>"})
"""Of which `mark_findings` speaks."""
SAID_ONCE = frozenset({"special_token_in_text"})
"""Kinds that a source is told of once, however many of its rows it is true of."""
_ROUNDED_S = 1.0
"""Seconds by which a time that people wrote down may be rounded."""
Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong."""

    where: str
    """`file:row`."""
    severity: Severity
    kind: str
    """Of an error about a row `errors.SampleKind`; what is counted and grouped by."""
    message: str
    medium: Media | None = None
    """The picture or clip in question, where there is one."""


def finding_of(error: SampleError, *, where: str, medium: Media | None = None) -> Finding:
    """Return an error about a row as a finding."""
    message = f"{error.what}; {error.fix}" if error.fix else error.what
    return Finding(where=where, severity="error", kind=error.kind, message=message, medium=medium)


def by_finding_cause(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Return findings in groups that say the same of different rows, the largest first."""
    return by_cause(findings, lambda finding: (finding.kind, finding.message))


def mark_findings(row: Conversation, markers: MediaMarkers) -> list[Finding]:
    """Return warnings about marks in a row's text that may not be meant as text."""
    asked = [
        block
        for turn in row.turns
        if turn.role == "user"
        for block in turn.blocks
        if isinstance(block, str)
    ]

    def warning(kind: str, message: str) -> list[Finding]:
        return [Finding(where=row.where, severity="warning", kind=kind, message=message)]

    if not row.media and any(
        has_marks(text, markers) or (markers == "plain" and other_marks(text)) for text in asked
    ):
        marks = " or ".join(f"`{mark}`" for mark in PLACEHOLDERS[markers].values())
        other = [mark for text in asked for mark in other_marks(text)] if markers == "plain" else []
        said = f"`{shown_text(other[0])}`" if other else marks
        what = (
            f"{said} in the text and no media in the row: it is learned as text; is a key missing?"
        )
        return warning("mark_without_media", what)
    if markers == "plain" and any(has_marks(text, "distinct") for text in asked):
        marks = " or ".join(f"`{mark}`" for mark in PLACEHOLDERS["distinct"].values())
        what = (
            f"{marks} is learned as text; set `media_markers: distinct` on this source if it marks "
            f"a place"
        )
        return warning("mark_learned_as_text", what)
    strange = [mark for text in asked for mark in other_marks(text)] if markers == "plain" else []
    if row.media and any(has_marks(text, markers) for text in asked):
        mark = PLACEHOLDERS[markers]["image"]
        what = f"a mark such as `{mark}` is left in the text: other blocks say where the media go"
        return warning("mark_learned_as_text", what)
    strange = strange or [tag for text in asked for tag in page_pictures(text)]
    if strange:
        shown = shown_text(strange[0])
        return warning("mark_learned_as_text", f"`{shown}` is read as text: no mark of ours")
    speakers = sorted(
        {
            turn.role
            for turn in row.every_turn
            if turn.role != "user"
            and any(isinstance(block, str) and _is_marked(block, markers) for block in turn.blocks)
        }
    )
    if speakers and row.media:
        what = f"a mark in a turn of the {' and the '.join(speakers)} is text"
        if row.has_unplaced_media:
            what += ", and nothing in the user's turns says where the row's media go"
        return warning("mark_outside_user", what)
    return []


def _is_marked(text: str, markers: MediaMarkers) -> bool:
    return has_marks(text, markers) or (markers == "plain" and bool(mark_numbers(text)))


def doubt_findings(row: Conversation) -> list[Finding]:
    """Return warnings about what in a row may be meant otherwise than it is read."""
    return [
        Finding(where=row.where, severity="warning", kind="doubtful", message=doubt)
        for doubt in row.doubts
    ]


def bounds_findings(medium: Media, duration_s: float | None, where: str) -> list[Finding]:
    """Return a warning about a clip whose part ends behind the clip itself.

    Args:
        medium: a picture or a clip.
        duration_s: of the whole clip; None of a picture.
        where: the row.
    """
    end_s = medium.end_s if isinstance(medium, VideoRef) else None
    if end_s is None or duration_s is None or end_s <= duration_s + _ROUNDED_S:
        return []
    what = f"`end_s` is {end_s:g}, and the clip ends at {duration_s:.2f} s: shown up to its end"
    kind = "clip_bounds"
    return [Finding(where=where, severity="warning", kind=kind, message=what, medium=medium)]


def left_out_findings(
    left_out: Collection[str], not_read: Collection[str], *, where: str
) -> list[Finding]:
    """Return what is said of a source's `not_read`: what it leaves out, and what no row has.

    Args:
        left_out: keys that it left out of some row.
        not_read: the keys that it names.
        where: the source.
    """
    findings: list[Finding] = []
    if left_out:
        message = f"left out by `not_read`: {', '.join(sorted(left_out))}"
        findings.append(Finding(where=where, severity="info", kind="left_out", message=message))
    if absent := sorted(set(not_read) - set(left_out)):
        names = ", ".join(f"`{name}`" for name in absent)
        message = f"`not_read` names {names}, which no row has"
        findings.append(Finding(where=where, severity="warning", kind="left_out", message=message))
    return findings


def unread_finding(keys: Iterable[str], *, where: str) -> Finding:
    """Return what is said of a source's keys that nothing was made of."""
    message = f"not read: {', '.join(sorted(keys))}"
    return Finding(where=where, severity="info", kind="unread_key", message=message)


def special_token_findings(row: Conversation, text: TextEncoder) -> list[Finding]:
    """Return what becomes of special tokens that a row's own words name.

    Tokens of the prompt stay text; the checkpoint's others become ids, which is said of one row.
    """
    texts = [block for turn in row.every_turn for block in turn.blocks if isinstance(block, str)]
    found = [token for token in text.special_tokens if any(token in words for words in texts)]
    stay = sorted(token for token in found if token in text.prompt_tokens - MARKS)
    ids = sorted(token for token in found if token not in text.prompt_tokens)
    messages = {
        "prompt_token_in_text": (
            stay,
            "stays text here: prompts are built of it, or the model has no row for it",
        ),
        "special_token_in_text": (ids, "becomes its own id, here and in every row"),
    }
    return [
        Finding(
            where=row.where,
            severity="warning",
            kind=kind,
            message=f"{', '.join(f'`{token}`' for token in tokens)} {message}",
        )
        for kind, (tokens, message) in messages.items()
        if tokens
    ]
