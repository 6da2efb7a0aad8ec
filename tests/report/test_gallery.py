"""The gallery is chosen by rule and survives pictures that are gone."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolvlm.eval.prediction import Prediction
from smolvlm.media.downloads import kept_file
from smolvlm.report.gallery import MAX_CHARACTERS, answer_views, choose


def row(number: int, correct: float, group: str = "shape", **changes: Any) -> Prediction:
    values: dict[str, Any] = {
        "where": f"eval.jsonl:{number}",
        "source": "eval",
        "question": "Which shape?",
        "answer": "circle",
        "references": ("circle",),
        "images": (),
    }
    return Prediction(correct=correct, group=group, **(values | changes))


@given(
    right=st.integers(0, 20), wrong=st.integers(0, 20), count=st.integers(0, 12), seed=st.randoms()
)
def test_half_are_wrong_where_there_are_enough_and_the_order_of_rows_is_nothing(
    right: int, wrong: int, count: int, seed: Any
) -> None:
    rows = [row(number, 1.0) for number in range(right)] + [
        row(100 + number, 0.0) for number in range(wrong)
    ]
    chosen = choose(rows, count=count)
    assert len(chosen) == min(count, right + wrong)
    counts = Counter(own.correct for own in chosen)
    assert counts[0.0] >= min(wrong, count // 2)
    assert counts[1.0] >= min(right, count // 2)
    seed.shuffle(rows)
    assert choose(rows, count=count) == chosen


def test_groups_take_turns() -> None:
    rows = [row(number, 1.0, "common") for number in range(50)] + [row(99, 1.0, "rare")]
    assert Counter(own.group for own in choose(rows, count=3)) == {"common": 2, "rare": 1}


def test_rows_with_pictures_come_first() -> None:
    rows = [row(number, 1.0) for number in range(50)] + [row(99, 1.0, images=("a.png",))]
    assert choose(rows, count=1)[0].images == ("a.png",)


def test_a_view_says_what_was_said_before_and_finds_pictures_from_the_run(
    photos: dict[str, Path], tmp_path: Path
) -> None:
    own = row(1, 0.0, answer="a square", images=(str(photos["coffee"]), "gone.png"))
    (view,) = answer_views([own], before=[row(1, 0.0, answer="")], count=1, run_dir=tmp_path)
    assert (view.answer, view.answer_before, view.verdict, view.is_right) == (
        "a square",
        "",
        "wrong",
        False,
    )
    assert view.pictures[0] is not None
    assert view.pictures[0].startswith("data:image/png;base64,")
    assert view.pictures[1] is None


def test_a_picture_beside_the_run_is_found(photos: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "cup.png").write_bytes(photos["coffee"].read_bytes())
    (view,) = answer_views([row(1, 1.0, images=("cup.png",))], before=[], count=1, run_dir=tmp_path)
    assert view.pictures[0] is not None
    assert view.answer_before is None


def test_partly_right_long_and_hostile_answers() -> None:
    own = row(1, 0.6, answer="x" * 1000, question="\x1b[2Jclear")
    (view,) = answer_views([own], before=[], count=1, run_dir=Path())
    assert (view.verdict, view.is_right) == ("60 % right", True)
    assert len(view.answer) == MAX_CHARACTERS
    assert view.question == "\\x1b[2Jclear"


def test_a_picture_named_by_its_address_is_shown_from_the_file_it_is_kept_in(
    photos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOLVLM_HOME", str(tmp_path))
    kept, gone = "https://example.invalid/a.png?b", "http://example.invalid/gone.png"
    kept_file(kept).parent.mkdir(parents=True)
    kept_file(kept).write_bytes(photos["coffee"].read_bytes())
    (view,) = answer_views([row(1, 1.0, images=(kept, gone))], before=[], count=1, run_dir=tmp_path)
    assert view.pictures[0] is not None
    assert view.pictures[1] is None
