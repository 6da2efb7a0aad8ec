"""Rows drawn from a seed: texts, pictures, pairs of pictures, clips, preferences.

In: a folder and how many of each kind; a picture may have several questions. Out: JSON-lines files
with their pictures beside them, clips as folders of frames, and the mixture that names them. Texts
have no digits, whose splitting the stock tokenizer class loses.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# fmt: off
_WORDS = [
    "the", "a", "red", "old", "small", "boat", "river", "house", "tree", "cloud", "bird",
    "street", "window", "light", "shadow", "child", "dog", "table", "two", "several", "near",
    "behind", "above", "under", "runs", "stands", "shines", "grows", "waits", "slowly",
    "quietly", "today", "again", "never", "bright", "green", "empty",
]
# fmt: on


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How many rows of each kind."""

    texts: int = 0
    pictures: int = 0
    """Pictures, each with `questions` rows: a tree."""
    questions: int = 1
    pairs: int = 0
    """Rows about two pictures."""
    clips: int = 0
    """Clips, each with two rows."""
    frames: int = 4
    """Frames of a clip, one a second."""
    preferences: int = 0
    """Rows with a better and a worse answer, all about pictures; not to be mixed with the others.
    """


class RowWriter:
    """Draws rows and writes them; the same seed gives the same files."""

    def __init__(
        self, folder: Path, *, picture_side_px: int, frame_side_px: int | None = None, seed: int = 0
    ) -> None:
        """
        Args:
            folder: is made.
            picture_side_px: of the larger side of the largest picture.
            frame_side_px: frames are squares of it, for clips. At a tile's side nothing is resized:
                the stock video processor resizes otherwise below torchvision 0.27 (transformers
                5.23 falls back to bicubic), and so its frames would not be ours.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._side_px = picture_side_px
        self._frame_side_px = frame_side_px
        self._random = np.random.default_rng(seed)
        self._num_pictures = 0

    def write(self, counts: Counts) -> list[dict[str, Any]]:
        """Write the rows and return the mixture: a source for each kind that has any."""
        kinds = {
            "texts": [self._answered() for _ in range(counts.texts)],
            "pictures": [
                row for _ in range(counts.pictures) for row in self._about_picture(counts.questions)
            ],
            "pairs": [
                {"images": [self._picture(), self._picture()], **self._answered()}
                for _ in range(counts.pairs)
            ],
            "clips": [
                row
                for number in range(counts.clips)
                for row in self._about_clip(number, counts.frames)
            ],
            "preferences": [self._preference() for _ in range(counts.preferences)],
        }
        mixture = []
        for name, rows in kinds.items():
            if rows:
                file = self._folder / f"{name}.jsonl"
                file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
                mixture.append({"name": name, "json_path": str(file)})
        return mixture

    def _answered(self) -> dict[str, str]:
        return {"question": self._sentence(4, 16) + "?", "answer": self._sentence(1, 24) + "."}

    def _about_picture(self, num_questions: int) -> list[dict[str, Any]]:
        image = self._picture()
        return [{"image": image, **self._answered()} for _ in range(num_questions)]

    def _about_clip(self, number: int, num_frames: int) -> list[dict[str, Any]]:
        clip = f"clip_{number}"
        (self._folder / clip).mkdir()
        assert self._frame_side_px is not None, "clips need frame_side_px"
        for frame in range(num_frames):
            self._draw((self._frame_side_px,) * 2).save(
                self._folder / clip / f"frame_{frame:03d}.png"
            )
        return [{"video": clip, **self._answered()} for _ in range(2)]

    def _preference(self) -> dict[str, Any]:
        answers = {"chosen": self._sentence(1, 12) + ".", "rejected": self._sentence(12, 24) + "."}
        return {"prompt": self._sentence(4, 16) + "?", "images": [self._picture()], **answers}

    def _picture(self) -> str:
        name = f"{self._num_pictures:04d}.png"
        self._num_pictures += 1
        self._draw(self._size()).save(self._folder / name)
        return name

    def _size(self) -> tuple[int, int]:
        width, height = (
            max(8, int(self._side_px * self._random.uniform(0.5, 1.0))) for _ in range(2)
        )
        return width, height

    def _draw(self, size: tuple[int, int]) -> Image.Image:
        """Return a colour ramp under coarse noise."""
        width, height = size
        ramp = np.linspace(0, 120, width)[None, :, None] * self._random.uniform(0, 1, 3)
        coarse = self._random.integers(0, 130, (8, 8, 3), dtype=np.uint8)
        noise = np.asarray(Image.fromarray(coarse).resize((width, height)))
        return Image.fromarray((ramp + noise).astype(np.uint8))

    def _sentence(self, fewest: int, most: int) -> str:
        words = self._random.choice(_WORDS, int(self._random.integers(fewest, most + 1)))
        return " ".join(words).capitalize()
