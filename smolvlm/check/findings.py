"""What is said about a row: an error that stopped it, or a remark about marks that stay text."""

from dataclasses import dataclass
from typing import Literal

from smolvlm.datasets.rows.placeholders import PLACEHOLDERS, has_marks
from smolvlm.datasets.rows.sources import MediaMarkers
from smolvlm.errors import SampleError
from smolvlm.records import Conversation, Media

Severity = Literal["error", "warning"]


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

    if not row.media and any(has_marks(text, markers) for text in asked):
        marks = " or ".join(f"`{mark}`" for mark in PLACEHOLDERS[markers].values())
        what = (
            f"{marks} in the text and no media in the row: it is learned as text; is a key missing?"
        )
        return warning("mark_without_media", what)
    if markers == "plain" and any(has_marks(text, "distinct") for text in asked):
        marks = " or ".join(f"`{mark}`" for mark in PLACEHOLDERS["distinct"].values())
        what = (
            f"{marks} is learned as text; set `media_markers: distinct` on this source if it marks "
            f"a place"
        )
        return warning("mark_learned_as_text", what)
    return []
