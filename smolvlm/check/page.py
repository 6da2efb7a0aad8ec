"""What `smolvlm check` found, as one HTML file: counts, histograms, rows with pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from smolvlm.check.check_rows import CheckResult
from smolvlm.check.findings import Finding, by_finding_cause
from smolvlm.errors import SampleError
from smolvlm.pages.figure_svg import COLOURS, draw_chart
from smolvlm.pages.templating import write_page
from smolvlm.pages.thumbnails import medium_uri

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN_OF_A_KIND = 24
"""Findings shown of each kind, one of each cause first; the JSON twin has all."""
THUMBNAIL_SIDE_PX = 112
KIND_TITLES = {
    "missing_media": "Missing files",
    "empty_media": "Empty files",
    "corrupt_media": "Pictures and clips that cannot be read",
    "too_large_media": "Enormous pictures",
    "outside_root": "Media outside their folder",
    "placeholder_mismatch": "Placeholders and media that do not match",
    "mark_without_media": "Marks of pictures or clips in rows without any",
    "mark_learned_as_text": "Marks of another kind than the source's, learned as text",
    "over_budget": "Rows larger than a pack",
    "over_context": "Rows longer than the model's context",
    "unused_token": "New tokens that no row holds",
    "empty_row": "Rows that teach nothing",
    "role": "Roles, and the order of turns",
    "duplicate_row": "Duplicates",
    "contradictory_answers": "One question about one picture, answered differently",
    "leaked_row": "Held-out rows that are trained on",
    "leaked_picture": "Held-out pictures that are trained on",
    "leaked_clip": "Held-out clips that are trained on",
    "wrong_method": "Rows that the training method does not read",
    "prompt_token_in_text": "Tokens of the prompt that stay text",
    "special_token_in_text": "Special tokens that become ids",
    "mark_outside_user": "Marks in answers or system turns while media have no place",
    "unread_key": "Keys that change a row and are not read",
    "unread_media": "Pictures or clips under keys that are not read",
    "bad_row": "Rows that cannot be read",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingView:
    """A finding as the page shows it."""

    finding: Finding
    thumbnail: str
    """Of a picture, or of a clip's first frame; empty where there is none, or none that can be
    read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KindView:
    """All findings of one kind."""

    title: str
    severity: str
    count: int
    shown: tuple[FindingView, ...]


def write_check_page(result: CheckResult, *, path: Path, title: str) -> Path:
    """Write the page and return its path."""
    kinds = [
        _kind(
            kind,
            [
                finding
                for finding in result.findings
                if finding.kind == kind and finding.severity != "info"
            ],
        )
        for kind, _ in result.kinds().most_common()
    ]
    kinds.sort(key=lambda view: view.severity != "error")
    widths = np.array([max(size) for size in result.sizes])
    charts = [
        ("Tokens of a row", _histogram(np.array(result.tokens), name="tokens", unit="tokens")),
        ("Longest side of a picture or clip", _histogram(widths, name="sides", unit="pixels")),
        (
            "Length of a clip",
            _histogram(np.array(result.durations_s), name="durations", unit="seconds"),
        ),
    ]
    return write_page(
        path,
        template="check.html",
        title=title,
        result=result,
        num_warnings=result.num_warnings,
        kinds=kinds,
        charts=[(name, chart) for name, chart in charts if chart],
    )


def _kind(kind: str, findings: Sequence[Finding]) -> KindView:
    shown = tuple(
        FindingView(finding=finding, thumbnail=_thumbnail(finding))
        for finding in _one_of_each_cause_first(findings)[:SHOWN_OF_A_KIND]
    )
    return KindView(
        title=KIND_TITLES.get(kind, kind),
        severity=findings[0].severity,
        count=len(findings),
        shown=shown,
    )


def _one_of_each_cause_first(findings: Sequence[Finding]) -> list[Finding]:
    if len(findings) <= SHOWN_OF_A_KIND:
        return list(findings)
    causes = by_finding_cause(findings)
    return [cause[0] for cause in causes] + [other for cause in causes for other in cause[1:]]


def _thumbnail(finding: Finding) -> str:
    if finding.medium is None:
        return ""
    try:
        return medium_uri(finding.medium, max_side_px=THUMBNAIL_SIDE_PX)
    except SampleError:
        return ""


def _histogram(values: np.ndarray, *, name: str, unit: str) -> Markup | None:
    """Draw how many of something have which size; None below two values."""
    if len(values) < 2:
        return None
    bins = np.histogram_bin_edges(values, bins=min(40, max(5, int(len(values) ** 0.5))))

    def draw(axes: "Axes", is_narrow: bool) -> None:
        axes.hist(values, bins=bins.tolist(), color=COLOURS["accent"])
        axes.grid(axis="y")
        axes.set_xlabel(unit)
        axes.margins(x=0.01)
        axes.locator_params(axis="x", nbins=4 if is_narrow else 9, integer=True)
        axes.locator_params(axis="y", nbins=5, integer=True)

    label = (
        f"Histogram of {len(values)} values from {values.min():,.6g} to {values.max():,.6g} {unit}"
    )
    return draw_chart(
        draw, name=name, label=label, height_px=lambda is_narrow: 200 if is_narrow else 240
    )
