"""The benchmark's rows: real pictures, each different, with questions and answers of ragged
lengths.

In: a seed and how many pictures. Out: JPEG files and a JSON-lines file of `{"question", "answer",
"image"}` rows, the questions of one picture next to each other. The pictures are crops of
photographs that the scikit-image package carries, at different sizes; the package is located, not
imported.
"""

import importlib.util
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.sentences import SUBJECTS, draw_answer, draw_question
from smolvlm.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One question about one picture."""

    question: str
    answer: str
    image: Path


def write_rows(folder: Path, *, num_pictures: int, questions_per_picture: int, seed: int) -> Path:
    """Write pictures and rows into `folder` and return the file of rows; the same arguments give
    the same rows.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    names = list(SUBJECTS)
    lines: list[str] = []
    for number in range(num_pictures):
        name = names[number % len(names)]
        image = f"{number:04d}.jpg"
        _variant(_photograph(name), random).save(folder / image, quality=92)
        for _ in range(questions_per_picture):
            question, answer = (
                draw_question(SUBJECTS[name], random),
                draw_answer(SUBJECTS[name], random),
            )
            lines.append(json.dumps({"question": question, "answer": answer, "image": image}))
    rows_file = folder / "rows.jsonl"
    rows_file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return rows_file


def read_rows(rows_file: Path) -> list[Row]:
    """Return the rows of a file that `write_rows` wrote, in order."""
    found = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    return [
        Row(question=row["question"], answer=row["answer"], image=rows_file.parent / row["image"])
        for row in found
    ]


def draw_steps(*, num_steps: int, rows_per_step: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Return the row numbers of each optimizer step, in a random order within the step.

    Two steps of four rows give, say, ((2, 0, 3, 1), (5, 4, 6, 7)).
    """
    random = np.random.default_rng(seed)
    return tuple(
        tuple((step * rows_per_step + random.permutation(rows_per_step)).tolist())
        for step in range(num_steps)
    )


@cache
def _photograph(name: str) -> Image.Image:
    package = importlib.util.find_spec("skimage")
    if package is None or package.origin is None:
        raise ConfigError(
            "the benchmark's photographs come with scikit-image",
            where="benchmarks.rows",
            fix="pip install -e '.[dev]'",
        )
    return Image.open(Path(package.origin).parent / "data" / name).convert("RGB")


def _variant(photograph: Image.Image, random: np.random.Generator) -> Image.Image:
    """Return a crop of at least half of each side, its longest edge scaled to 320 to 900 px."""
    width, height = (int(side * random.uniform(0.5, 1.0)) for side in photograph.size)
    left = int(random.integers(photograph.width - width + 1))
    top = int(random.integers(photograph.height - height + 1))
    crop = photograph.crop((left, top, left + width, top + height))
    scale = random.integers(320, 901) / max(width, height)
    return crop.resize(
        (max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.LANCZOS
    )
