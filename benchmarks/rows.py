"""The benchmark's rows: real pictures, each different, with questions and answers of ragged
lengths.

In: a seed, what the rows are about and how many. Out: JPEG files and a JSON-lines file of
`{"question", "answer", "image"}` rows (`"images"` where there are several, neither for texts), the
questions of one picture next to each other. The pictures are crops of photographs that the
scikit-image package carries, at different sizes; the package is located, not imported. A clip is a
camera that moves over a photograph, its frames given as pictures, so that systems that read no
clips can learn from it too.
"""

import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from benchmarks.sentences import SUBJECTS, draw_answer, draw_caption, draw_question
from smolvlm.errors import ConfigError

Content = Literal["picture", "wide_picture", "page", "caption", "text", "clip"]
"""`wide_picture` is 4:3, which is cut into 13 tiles; `page` is square, which is cut into 17."""
CLIP_FRAMES = 64
FRAME_PX = (640, 360)
PAGE_PX = 1400
CAPTION_PROMPT = "Describe the picture."


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One question, most often about one picture."""

    question: str
    answer: str
    images: tuple[Path, ...]

    @property
    def image(self) -> Path:
        """The only picture of a row that has one."""
        (image,) = self.images
        return image


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """Where the pictures of one subject go, and what decides them."""

    folder: Path
    number: int
    """Of the picture, page or clip; file names begin with it."""
    subject: str
    """A photograph's file, a key of `SUBJECTS`."""
    random: np.random.Generator


def write_rows(
    folder: Path,
    *,
    num_pictures: int,
    questions_per_picture: int,
    seed: int,
    content: Content = "picture",
) -> Path:
    """Write pictures and rows into `folder` and return the file of rows; the same arguments give
    the same rows.

    Args:
        num_pictures: pictures, pages or clips; of texts, groups of `questions_per_picture`.

    Raises:
        ConfigError: scikit-image is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    names = list(SUBJECTS)
    lines: list[str] = []
    for number in range(num_pictures):
        name = names[number % len(names)]
        drawing = Drawing(folder=folder, number=number, subject=name, random=random)
        media = _WRITERS[content](drawing)
        for _ in range(questions_per_picture):
            lines.append(json.dumps({**_words(content, drawing), **media}))
    rows_file = folder / "rows.jsonl"
    rows_file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return rows_file


def read_rows(rows_file: Path) -> list[Row]:
    """Return the rows of a file that `write_rows` wrote, in order."""
    found = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    return [
        Row(
            question=row["question"],
            answer=row["answer"],
            images=tuple(rows_file.parent / name for name in _names(row)),
        )
        for row in found
    ]


def _names(row: dict[str, Any]) -> list[str]:
    return [row["image"]] if "image" in row else row.get("images", [])


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


def _words(content: Content, drawing: Drawing) -> dict[str, str]:
    subject, random = SUBJECTS[drawing.subject], drawing.random
    if content == "caption":
        return {"question": CAPTION_PROMPT, "answer": draw_caption(subject, random)}
    return {"question": draw_question(subject, random), "answer": draw_answer(subject, random)}


def _write_picture(drawing: Drawing) -> dict[str, Any]:
    return _saved(_variant(_photograph(drawing.subject), drawing.random), drawing)


def _write_wide(drawing: Drawing) -> dict[str, Any]:
    """A picture of 4:3, whatever the photograph's shape."""
    width = int(drawing.random.integers(600, 1100))
    photograph = _variant(_photograph(drawing.subject), drawing.random)
    return _saved(photograph.resize((width, width * 3 // 4)), drawing)


def _write_page(drawing: Drawing) -> dict[str, Any]:
    """A square page of text."""
    page = Image.new("RGB", (PAGE_PX, PAGE_PX), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=22)
    for line, text in enumerate(_page_lines(drawing)):
        draw.text((60, 60 + 34 * line), text, fill="black", font=font)
    return _saved(page, drawing)


def _page_lines(drawing: Drawing) -> Iterator[str]:
    for _ in range((PAGE_PX - 120) // 34):
        yield draw_caption(SUBJECTS[drawing.subject], drawing.random)[:110]


def _write_clip(drawing: Drawing) -> dict[str, Any]:
    """Frames of a camera that moves over the photograph in a straight line."""
    photograph = _photograph(drawing.subject)
    scale = drawing.random.uniform(0.5, 0.8)
    size = tuple(int(side * scale) for side in photograph.size)
    room = [side - cut for side, cut in zip(photograph.size, size, strict=True)]
    begin, end = drawing.random.uniform(0, 1, (2, 2))
    names = []
    for frame in range(CLIP_FRAMES):
        at = begin + (end - begin) * frame / (CLIP_FRAMES - 1)
        left, top = (int(share * pixels) for share, pixels in zip(at, room, strict=True))
        names.append(f"{drawing.number:04d}_{frame:02d}.jpg")
        crop = photograph.crop((left, top, left + size[0], top + size[1]))
        crop.resize(FRAME_PX).save(drawing.folder / names[-1], quality=92)
    return {"images": names}


def _saved(image: Image.Image, drawing: Drawing) -> dict[str, Any]:
    name = f"{drawing.number:04d}.jpg"
    image.save(drawing.folder / name, quality=92)
    return {"image": name}


_WRITERS: dict[Content, Callable[[Drawing], dict[str, Any]]] = {
    "picture": _write_picture,
    "wide_picture": _write_wide,
    "page": _write_page,
    "caption": _write_picture,
    "text": lambda _: {},
    "clip": _write_clip,
}
