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
    right = list(_in_turns([row for row in rows if _is_right(row)]))
    wrong = list(_in_turns([row for row in rows if not _is_right(row)]))
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
    said_before = {(row.where, row.question): row.answer for row in before}
    return tuple(_view(row, said_before, run_dir) for row in choose(rows, count=count))


def _view(row: Prediction, said_before: Mapping[tuple[str, str], str], run_dir: Path) -> AnswerView:
    previous = said_before.get((row.where, row.question))
    return AnswerView(
        where=row.where,
        group=row.group,
        question=_shortened(row.question),
        truth=_shortened(" / ".join(dict.fromkeys(row.references))),
        answer=_shortened(row.answer),
        answer_before=None if previous is None else _shortened(previous),
        verdict={1.0: "right", 0.0: "wrong"}.get(
            row.correct, f"{percent(row.correct, digits=0)} right"
        ),
        is_right=_is_right(row),
        pictures=tuple(_picture(name, run_dir) for name in row.images[:MAX_PICTURES]),
    )


def _picture(name: str, run_dir: Path) -> str | None:
    is_address = name.lower().startswith(("http://", "https://"))
    path = kept_file(name) if is_address else run_dir / name  # for a page nothing is fetched
    try:
        is_clip = path.is_dir() or is_clip_ending(ending_of(name))
        medium = VideoRef(path=path) if is_clip else ImageRef(path=path)
        return medium_uri(medium, max_side_px=PICTURE_SIDE_PX)
    except (
        SampleError
    ):  # moved since, or it came inside the row: the report is of the run, and says so in its place
        return None


def _in_turns(rows: Sequence[Prediction]) -> Iterator[Prediction]:
    """Yield rows by their digests, one of each group in turn, those with pictures first."""
    groups: dict[str, list[Prediction]] = {}
    for row in sorted(rows, key=lambda row: (not row.images, _digest(row))):
        groups.setdefault(row.group, []).append(row)
    for turn in range(max(map(len, groups.values()), default=0)):
        yield from (groups[name][turn] for name in sorted(groups) if turn < len(groups[name]))


def _digest(row: Prediction) -> bytes:
    text = f"{row.where}\0{row.question}"
    return blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()


def _is_right(row: Prediction) -> bool:
    return row.correct >= 0.5


def _shortened(text: str) -> str:
    return visible(text if len(text) <= MAX_CHARACTERS else text[: MAX_CHARACTERS - 1] + "…")
