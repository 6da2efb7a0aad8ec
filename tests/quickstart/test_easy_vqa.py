"""easy-VQA as rows: all questions, pictures that open, the question-only structure that the page
warns of."""

import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from smolvlm.quickstart.easy_vqa import prepare_easy_vqa


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_easy_vqa(tmp_path_factory.mktemp("data") / "easy_vqa")


def rows(folder: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]


def test_every_question_is_there_with_its_picture(folder: Path) -> None:
    train, held_out = rows(folder, "train"), rows(folder, "eval")
    assert (len(train), len(held_out)) == (38_575, 9_673)
    assert train[0] == {
        "question": "what is the blue shape?",
        "answer": "rectangle",
        "image": "images/train-0000.png",
        "question_type": "shape",
    }
    train_images, held_out_images = (
        {row["image"] for row in train},
        {row["image"] for row in held_out},
    )
    assert (len(train_images), len(held_out_images)) == (4000, 1000)
    assert not train_images & held_out_images
    assert {path.name for path in (folder / "images").iterdir()} == {
        Path(name).name for name in train_images | held_out_images
    }
    with Image.open(folder / train[0]["image"]) as image:
        assert (image.size, image.mode) == ((64, 64), "RGB")


def test_question_types_follow_the_answers(folder: Path) -> None:
    counts = Counter(row["question_type"] for row in rows(folder, "eval"))
    assert counts == {"yes_no": 7136, "shape": 1257, "color": 1280}
    assert {row["answer"] for row in rows(folder, "eval") if row["question_type"] == "shape"} == {
        "circle",
        "rectangle",
        "triangle",
    }


def test_questions_of_a_picture_stand_next_to_each_other(folder: Path) -> None:
    images = [row["image"] for row in rows(folder, "train")]
    assert images == sorted(images)


def test_a_second_call_changes_nothing_and_a_fresh_one_gives_the_same_bytes(
    folder: Path, tmp_path: Path
) -> None:
    written = (folder / "eval.jsonl").stat().st_mtime_ns
    assert prepare_easy_vqa(folder) == folder
    assert (folder / "eval.jsonl").stat().st_mtime_ns == written
    again = prepare_easy_vqa(tmp_path / "again")
    for name in ("train.jsonl", "eval.jsonl", "images/eval-0999.png"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
