"""The list of answers: which are in it, and by what it is narrowed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smolvlm.eval.prediction import Prediction
from smolvlm.report.answer_list import MAX_RIGHT, MAX_WRONG, AnswerList, answer_list
from smolvlm.report.report import run_report


def answered(
    number: int, *, correct: float, group: str = "a", images: tuple[str, ...] = ()
) -> Prediction:
    return Prediction(
        where=f"rows.jsonl:{number}",
        source=group,
        group=group,
        question="What?",
        answer="x",
        references=("y",),
        correct=correct,
        images=images,
    )


def listed(*rows: Prediction, before: tuple[Prediction, ...] = ()) -> AnswerList:
    found = answer_list(rows, before, run_dir=Path())
    assert found is not None
    return found


def counts(found: AnswerList) -> dict[str, tuple[int, int]]:
    return {one.name: (one.num_shown, one.num_rows) for one in (*found.kinds, *found.groups)}


def test_wrong_answers_come_first_and_many_are_cut() -> None:
    rows = [answered(number, correct=float(number % 2)) for number in range(2 * MAX_WRONG + 20)]
    found = listed(*rows)
    kinds = [row.kinds for row in found.rows]
    assert kinds == [("wrong",)] * MAX_WRONG + [("right",)] * MAX_RIGHT
    assert counts(found) == {
        "all": (MAX_WRONG + MAX_RIGHT, 2 * MAX_WRONG + 20),
        "wrong": (MAX_WRONG, MAX_WRONG + 10),
        "right": (MAX_RIGHT, MAX_WRONG + 10),
    }


def test_what_was_lost_and_gained_against_the_untrained_model() -> None:
    now = [answered(number, correct=correct) for number, correct in enumerate((0, 0, 1, 1))]
    before = [answered(number, correct=correct) for number, correct in enumerate((0, 1, 0, 1))]
    found = listed(*now, before=tuple(before))
    assert counts(found) == {
        "all": (4, 4), "wrong": (2, 2), "right": (2, 2), "lost": (1, 1), "gained": (1, 1),
    }  # fmt: skip
    lost = [row.view.where for row in found.rows if "lost" in row.kinds]
    assert lost == ["rows.jsonl:1"]


def test_groups_are_chosen_from_where_there_are_several() -> None:
    assert listed(answered(1, correct=1)).groups == ()
    rows = [answered(number, correct=0, group="ab"[number % 2]) for number in range(5)]
    found = listed(*rows)
    assert counts(found)["a"] == (3, 3)
    assert {(row.view.group, row.group_number) for row in found.rows} == {("a", 0), ("b", 1)}
    many = [answered(number, correct=0, group=str(number)) for number in range(30)]
    assert listed(*many).groups == ()


def test_no_answers_no_list() -> None:
    assert answer_list((), (), run_dir=Path()) is None


def test_the_page_narrows_it_with_labelled_controls_and_no_script(
    write_run: Callable[..., Path],
    answer_of: Callable[..., dict[str, Any]],
    photos: dict[str, Path],
) -> None:
    after = [
        answer_of(
            number,
            correct=float(number % 3 == 0),
            group="ab"[number % 2],
            images=[str(photos["coffee"])],
        )
        for number in range(8)
    ]
    before = [{**line, "correct": 1.0} for line in after]
    page = run_report(write_run(after=after, before=before))
    assert "<script" not in page
    ids = re.findall(r'<label><input type="radio" name="(kind|group)" id="([\w-]+)"', page)
    assert ids == [
        ("kind", "kind-all"), ("kind", "kind-wrong"), ("kind", "kind-right"), ("kind", "kind-lost"),
        ("group", "group-all"), ("group", "group-0"), ("group", "group-1"),
    ]  # fmt: skip
    for kind in ("wrong", "right", "lost"):
        rule = f".listed:has(#kind-{kind}:checked) .row:not(.{kind}) {{ display: none; }}"
        assert rule in page
    assert page.count('<li class="row wrong lost g') == 5
    assert page.count('<li class="row right g') == 3
    assert "data:image/" in page[page.index('<ol class="rows"') :]
