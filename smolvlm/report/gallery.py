"""A few held-out answers with their pictures, chosen by no one's taste.

The order is that of a digest of each row's name, groups take turns, and half of the places go to
wrong answers: the same predictions give the same gallery, and a run cannot show its best side only.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from smolvlm.errors import SampleError
from smolvlm.eval.prediction import Prediction
from smolvlm.media.downloads import kept_file
from smolvlm.media.kinds import ending_of, is_clip_ending
from smolvlm.pages.thumbnails import medium_uri
from smolvlm.pages.token_text import percent
from smolvlm.records import ImageRef, VideoRef
from smolvlm.terminal import visible

MAX_PICTURES = 3
MAX_CHARACTERS = 400
PICTURE_SIDE_PX = 360


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerView:
    """One answered question, as the page draws it."""

    where: str
    group: str
    question: str
    truth: str
    answer: str
    answer_before: str | None
    """What the model said before training; None where that was not kept."""
    verdict: str
    is_right: bool
    pictures: tuple[str | None, ...]
    """Data URIs; None for a picture that is no longer there."""


def choose(rows: Sequence[Prediction], *, count: int) -> tuple[Prediction, ...]:
    """Return up to `count` rows, right answers first; as many wrong as right where there are enough
    of both."""
    right = list(in_turns([row for row in rows if is_right(row)]))
    wrong = list(in_turns([row for row in rows if not is_right(row)]))
    num_wrong = min(len(wrong), max(count // 2, count - len(right)))
    return (*right[: count - num_wrong], *wrong[:num_wrong])


def answer_views(
    rows: Sequence[Prediction], *, before: Sequence[Prediction], count: int, run_dir: Path
) -> tuple[AnswerView, ...]:
    """Return the gallery of `rows`.

    Args:
        rows: all predictions.
        before: those made before training; may be empty.
        count: places in the gallery.
        run_dir: what relative picture paths start from.
    """
    said = said_before(before)
    return tuple(
        answer_view(row, said, run_dir, side_px=PICTURE_SIDE_PX)
        for row in choose(rows, count=count)
    )


def said_before(before: Sequence[Prediction]) -> dict[tuple[str, str], str]:
    """Return each row's answer by its name and question."""
    return {(row.where, row.question): row.answer for row in before}


def answer_view(
    row: Prediction,
    said: Mapping[tuple[str, str], str],
    run_dir: Path,
    *,
    side_px: int | None,
) -> AnswerView:
    """Return one answer as a page draws it.

    Args:
        row: the answer.
        said: before training, by row and question.
        run_dir: what relative picture paths start from.
        side_px: longest side of its pictures; None shows none.
    """
    previous = said.get((row.where, row.question))
    return AnswerView(
        where=row.where,
        group=row.group,
        question=shortened(row.question),
        truth=shortened(" / ".join(dict.fromkeys(row.references))),
        answer=shortened(row.answer),
        answer_before=None if previous is None else shortened(previous),
        verdict={1.0: "right", 0.0: "wrong"}.get(
            row.correct, f"{percent(row.correct, digits=0)} right"
        ),
        is_right=is_right(row),
        pictures=pictures_of(row, run_dir, side_px=side_px) if side_px else (),
    )


def pictures_of(
    row: Prediction, run_dir: Path, *, side_px: int = PICTURE_SIDE_PX
) -> tuple[str | None, ...]:
    """Return a row's first pictures as data URIs, None for one that is no longer there."""
    return tuple(_picture(name, run_dir, side_px) for name in row.images[:MAX_PICTURES])


def _picture(name: str, run_dir: Path, side_px: int) -> str | None:
    is_address = name.lower().startswith(("http://", "https://"))
    path = kept_file(name) if is_address else run_dir / name  # for a page nothing is fetched
    try:
        is_clip = path.is_dir() or is_clip_ending(ending_of(name))
        medium = VideoRef(path=path) if is_clip else ImageRef(path=path)
        return medium_uri(medium, max_side_px=side_px)
    except (
        SampleError
    ):  # moved since, or it came inside the row: the report is of the run, and says so in its place
        return None


def in_turns(rows: Sequence[Prediction]) -> Iterator[Prediction]:
    """Yield rows by their digests, one of each group in turn, those with pictures first."""
    groups: dict[str, list[Prediction]] = {}
    for row in sorted(rows, key=lambda row: (not row.images, _digest(row))):
        groups.setdefault(row.group, []).append(row)
    for turn in range(max(map(len, groups.values()), default=0)):
        yield from (groups[name][turn] for name in sorted(groups) if turn < len(groups[name]))


def _digest(row: Prediction) -> bytes:
    text = f"{row.where}\0{row.question}"
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()


def is_right(row: Prediction) -> bool:
    """Say whether an answer counts as right: at least half."""
    return row.correct >= 0.5


def shortened(text: str) -> str:
    """Return a text as a page shows it, cut where it is long."""
    return visible(text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…")
