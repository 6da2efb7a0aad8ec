"""The answers of a run as a list that can be narrowed: wrong ones, lost ones, those of one group.

In: predictions after and before training. Out: an `AnswerList`. Wrong answers come first, for they
are what one reads; of many, as many as a page bears, chosen by a digest of their rows' names with
the groups in turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from smolvlm.eval.prediction import Prediction
from smolvlm.report.gallery import AnswerView, answer_view, in_turns, is_right, said_before

MAX_WRONG = 150
MAX_RIGHT = 50
MAX_PICTURES = 60
"""Rows that have theirs; a small one is some 3 kB of the page."""
PICTURE_SIDE_PX = 112
MAX_GROUPS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedAnswer:
    """One answer and what it may be narrowed by."""

    view: AnswerView
    kinds: tuple[str, ...]
    """`wrong` or `right`; `lost` where the untrained model was right, `gained` where it was
    wrong."""
    group_number: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """What the list may be narrowed to."""

    name: str
    words: str
    num_shown: int
    num_rows: int
    """Of the whole held-out set."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerList:
    """The list."""

    rows: tuple[ListedAnswer, ...]
    kinds: tuple[Choice, ...]
    """Those that occur, `all` first."""
    groups: tuple[Choice, ...]
    """In the order of `group_number`; none where there are too few or too many to choose from."""


def answer_list(
    after: Sequence[Prediction], before: Sequence[Prediction], *, run_dir: Path
) -> AnswerList | None:
    """Return the list; None without answers.

    Args:
        after: of the trained model.
        before: of the untrained one; may be empty.
        run_dir: what relative picture paths start from.
    """
    if not after:
        return None
    wrong = islice(in_turns([row for row in after if not is_right(row)]), MAX_WRONG)
    right = islice(in_turns([row for row in after if is_right(row)]), MAX_RIGHT)
    shown = [*wrong, *right]
    was_right = {(row.where, row.question): is_right(row) for row in before}
    said = said_before(before)
    groups = sorted({row.group for row in after})
    rows: list[ListedAnswer] = []
    num_pictures = 0
    for row in shown:
        side_px = PICTURE_SIDE_PX if num_pictures < MAX_PICTURES else None
        num_pictures += bool(row.images)
        rows.append(
            ListedAnswer(
                view=answer_view(row, said, run_dir, side_px=side_px),
                kinds=_kinds(row, was_right),
                group_number=groups.index(row.group),
            )
        )
    kinds_of_all = [_kinds(row, was_right) for row in after]
    kinds = [
        Choice(
            name=name,
            words=words,
            num_shown=sum(name in row.kinds for row in rows),
            num_rows=sum(name in kinds for kinds in kinds_of_all),
        )
        for name, words in KINDS.items()
    ]
    everything = Choice(name="all", words="all", num_shown=len(rows), num_rows=len(after))
    return AnswerList(
        rows=tuple(rows),
        kinds=(everything, *(choice for choice in kinds if choice.num_rows)),
        groups=_groups(groups, shown, after) if 2 <= len(groups) <= MAX_GROUPS else (),
    )


KINDS = {
    "wrong": "wrong",
    "right": "right",
    "lost": "right before, wrong now",
    "gained": "wrong before, right now",
}


def _kinds(row: Prediction, was_right: dict[tuple[str, str], bool]) -> tuple[str, ...]:
    is_right_now = is_right(row)
    kinds = ("right",) if is_right_now else ("wrong",)
    earlier = was_right.get((row.where, row.question))
    if earlier is not None and earlier != is_right_now:
        kinds += ("gained",) if is_right_now else ("lost",)
    return kinds


def _groups(
    names: Sequence[str], shown: Sequence[Prediction], after: Sequence[Prediction]
) -> tuple[Choice, ...]:
    return tuple(
        Choice(
            name=name,
            words=name,
            num_shown=sum(row.group == name for row in shown),
            num_rows=sum(row.group == name for row in after),
        )
        for name in names
    )
