"""The easy-VQA data set as rows that this project reads.

In: the `easy-vqa` wheel of the package index (MIT): 5,000 pictures of 64 x 64 pixels with one
coloured shape each, 38,575 questions to train on and 9,673 held out on other pictures. Out:
`train.jsonl`, `eval.jsonl` and `images/` in a folder; a row is a question, and the questions of one
picture stand next to each other, so that they can be trained as a tree. Nearly three quarters of
the answers are yes or no, and every held-out question's text also occurs in training, so that
answering without looking at the picture already scores well (yes/no 82.5 %, shape 35 %, colour 12
%): hence the column `question_type`, to report each type apart.
"""

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Literal

from smolvlm.disk.atomic_files import sync_tree, write_text
from smolvlm.package_index import Wheel, fetch_wheel

EASY_VQA_WHEEL = Wheel(
    name="easy-vqa",
    version="1.0",
    sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
    size_mb=3,
)

QuestionType = Literal["shape", "color", "yes_no"]
_SHAPES = frozenset({"circle", "rectangle", "triangle"})
_SPLITS = {"train": "train", "eval": "test"}
"""Our split -> the wheel's."""
_MARK = ".easy-vqa"
"""File that says which version a folder holds; written last."""


def prepare_easy_vqa(out_dir: Path) -> Path:
    """Write `train.jsonl`, `eval.jsonl` and `images/` into `out_dir`, unless they are there.

    Returns `out_dir`.

    Rows are `{"question", "answer", "image", "question_type"}` in the data set's own order; `image`
    is relative to `out_dir`, `question_type` is shape, color or yes_no.

    Raises:
        ConfigError: the wheel could not be downloaded.
    """
    mark = out_dir / _MARK
    if mark.exists() and mark.read_text(encoding="utf-8") == EASY_VQA_WHEEL.requirement:
        return out_dir
    wheel_file = fetch_wheel(EASY_VQA_WHEEL)
    (out_dir / "images").mkdir(parents=True, exist_ok=True)
    with (
        zipfile.ZipFile(wheel_file) as archive,
        tempfile.TemporaryDirectory(dir=out_dir, prefix=".new-") as work_dir,
    ):
        for split in _SPLITS:
            _extract_images(archive, split, out_dir=out_dir, work_dir=Path(work_dir))
            rows_file = Path(work_dir) / f"{split}.jsonl"
            rows_file.write_text(_rows(archive, split), encoding="utf-8")
            rows_file.replace(out_dir / rows_file.name)
    sync_tree(out_dir)
    write_text(mark, EASY_VQA_WHEEL.requirement)
    return out_dir


def question_type(answer: str) -> QuestionType:
    """Return what a question asks for, as its answer gives it away: types share no answer."""
    if answer in ("yes", "no"):
        return "yes_no"
    return "shape" if answer in _SHAPES else "color"


def _extract_images(archive: zipfile.ZipFile, split: str, *, out_dir: Path, work_dir: Path) -> None:
    prefix = f"easy_vqa/data/{_SPLITS[split]}/images/"
    for name in archive.namelist():
        if name.startswith(prefix) and name.endswith(".png"):
            extracted = work_dir / "image.png"
            with archive.open(name) as source, extracted.open("wb") as sink:
                shutil.copyfileobj(source, sink)
            extracted.replace(out_dir / "images" / f"{split}-{int(Path(name).stem):04d}.png")


def _rows(archive: zipfile.ZipFile, split: str) -> str:
    questions = json.loads(archive.read(f"easy_vqa/data/{_SPLITS[split]}/questions.json"))
    rows = (
        {
            "question": question,
            "answer": answer,
            "image": f"images/{split}-{image:04d}.png",
            "question_type": question_type(answer),
        }
        for question, answer, image in questions
    )
    return "".join(json.dumps(row) + "\n" for row in rows)
